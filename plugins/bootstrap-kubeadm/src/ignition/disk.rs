//! Disks, file systems and mounts as Ignition and systemd have them.

use serde_json::Value;

use super::json::Json;
use super::unsupported;
use crate::question::Question;
use crate::refusal::Refusal;

/// GUIDs of partition types by the config's names for them.
const PARTITION_TYPES: [(&str, &str); 6] = [
    ("Linux", "0FC63DAF-8483-4772-8E79-3D69D8477DE4"),
    ("LinuxSwap", "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"),
    ("LinuxRAID", "A19D880F-05FC-4D3B-A006-743F0F84911E"),
    ("LVM", "E6D6D379-F507-44C2-A23C-238F2A3DF928"),
    ("Fat32", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"),
    ("NTFS", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"),
];

/// `storage` without its files.
pub(super) fn storage(question: &Question<'_>) -> Result<Vec<(String, Json)>, Refusal> {
    let mut storage = Vec::new();
    let partitions = question.list("/diskSetup/partitions").iter().enumerate();
    let disks: Vec<Json> = partitions
        .map(|(position, disk)| disk_entry(disk, position))
        .collect::<Result<_, Refusal>>()?;
    if !disks.is_empty() {
        storage.push(("disks".to_owned(), Json::List(disks)));
    }
    let systems = question.list("/diskSetup/filesystems").iter().enumerate();
    let systems: Vec<Json> = systems
        .map(|(position, system)| file_system(system, position))
        .collect::<Result<_, Refusal>>()?;
    if !systems.is_empty() {
        storage.push(("filesystems".to_owned(), Json::List(systems)));
    }
    Ok(storage)
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

fn is_set(value: &Value, field: &str) -> bool {
    value.get(field) == Some(&Value::Bool(true))
}

fn disk_entry(disk: &Value, position: usize) -> Result<Json, Refusal> {
    let field = |name: &str| format!("diskSetup.partitions[{position}].{name}");
    if text(disk, "tableType").is_some_and(|table| table != "gpt") {
        return Err(unsupported(&field("tableType: mbr"), "use gpt"));
    }
    let overwrite = is_set(disk, "overwrite");
    let mut entries = vec![(
        "device".to_owned(),
        Json::text(text(disk, "device").unwrap_or_default()),
    )];
    if overwrite {
        entries.push(("wipeTable".to_owned(), Json::bool(true)));
    }
    let layout = disk.get("diskLayout").and_then(Value::as_array);
    let kind = match layout.map(Vec::as_slice) {
        None if is_set(disk, "layout") => Some(None),
        None => None,
        Some([whole]) if whole.get("percentage").and_then(Value::as_u64) == Some(100) => {
            Some(text(whole, "partitionType"))
        }
        Some(_) => {
            return Err(unsupported(
                &field("diskLayout"),
                "Ignition does not know percentages: use layout: true for one partition",
            ));
        }
    };
    if let Some(kind) = kind {
        let mut partition = vec![
            ("number".to_owned(), Json::Literal("1".to_owned())),
            ("startMiB".to_owned(), Json::Literal("0".to_owned())),
            ("sizeMiB".to_owned(), Json::Literal("0".to_owned())),
        ];
        if let Some(kind) = kind {
            let guid = PARTITION_TYPES.iter().find(|(name, _)| *name == kind);
            let guid = match guid {
                Some((_, guid)) => *guid,
                None if kind == "LinuxExtended" => {
                    return Err(unsupported(
                        &field("diskLayout[0].partitionType: LinuxExtended"),
                        "choose another partitionType",
                    ));
                }
                None => kind,
            };
            partition.push(("typeGuid".to_owned(), Json::text(guid)));
        }
        if overwrite {
            partition.push(("wipePartitionEntry".to_owned(), Json::bool(true)));
        }
        entries.push((
            "partitions".to_owned(),
            Json::List(vec![Json::Map(partition)]),
        ));
    }
    Ok(Json::Map(entries))
}

fn file_system(system: &Value, position: usize) -> Result<Json, Refusal> {
    for field in ["replaceFS", "partition"] {
        if system.get(field).is_some() {
            let field = format!("diskSetup.filesystems[{position}].{field}");
            return Err(unsupported(&field, "name the partition's device"));
        }
    }
    let mut entries = Vec::new();
    for (from, to) in [
        ("device", "device"),
        ("filesystem", "format"),
        ("label", "label"),
        ("extraOpts", "options"),
        ("overwrite", "wipeFilesystem"),
    ] {
        if let Some(value) = system.get(from) {
            entries.push((to.to_owned(), Json::from(value.clone())));
        }
    }
    Ok(Json::Map(entries))
}

/// The mounts as units: name and text.
pub(super) fn mounts(question: &Question<'_>) -> Result<Vec<(String, String)>, Refusal> {
    let mounts = question.list("/mounts").iter().enumerate();
    mounts
        .map(|(position, mount)| {
            let fields = mount.as_array().map(Vec::as_slice).unwrap_or_default();
            let fields: Vec<&str> = fields.iter().filter_map(Value::as_str).collect();
            let (what, place) = match fields.as_slice() {
                [what, place, ..] if place.starts_with('/') => (*what, *place),
                _ => {
                    return Err(Refusal::object(
                        "MountInvalid",
                        format!("mounts[{position}] must begin with a device and an absolute path"),
                    ));
                }
            };
            let mut unit = format!(
                "[Unit]\nDescription=Mounts {place}\n\n[Mount]\nWhat={}\nWhere={place}\n",
                device(question, what)
            );
            // As in fstab: the type, then the options; what follows has no place in a unit.
            if let Some(kind) = fields.get(2).filter(|kind| **kind != "auto") {
                if is_option(kind) {
                    let why = format!("{kind:?} is an option where the type belongs: write the type, or auto, before it");
                    return Err(mount_invalid(position, 2, &why));
                }
                unit.push_str(&format!("Type={kind}\n"));
            }
            if let Some(options) = fields.get(3) {
                unit.push_str(&format!("Options={options}\n"));
            }
            let further = fields.iter().enumerate().skip(4);
            if let Some((field, more)) = further.into_iter().find(|(_, more)| **more != "0") {
                let why = format!("{more:?} means nothing to a mount unit, which neither dumps nor orders checks: write 0, or leave it out");
                return Err(mount_invalid(position, field, &why));
            }
            unit.push_str("\n[Install]\nWantedBy=local-fs.target\n");
            Ok((unit_name(place), unit))
        })
        .collect()
}

fn mount_invalid(position: usize, field: usize, why: &str) -> Refusal {
    Refusal::object(
        "MountInvalid",
        format!("mounts[{position}][{field}]: {why}"),
    )
}

/// Options of mount(8) that are no types of file systems, without `=`.
const OPTIONS: [&str; 31] = [
    "_netdev",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "discard",
    "exec",
    "group",
    "lazytime",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofail",
    "norelatime",
    "nosuid",
    "nouser",
    "owner",
    "rbind",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "sync",
    "user",
    "users",
];

/// Whether what should be the type of a file system are options.
fn is_option(kind: &str) -> bool {
    kind.contains([',', '=']) || kind.starts_with("x-") || OPTIONS.contains(&kind)
}

/// The device of what fstab calls it: a file system of this config by its label, or anything that systemd finds.
fn device(question: &Question<'_>, what: &str) -> String {
    let label = what.strip_prefix("LABEL=").unwrap_or(what);
    let systems = question.list("/diskSetup/filesystems").iter();
    let known = systems
        .filter(|system| text(system, "label") == Some(label))
        .find_map(|system| text(system, "device"));
    if let Some(device) = known {
        return device.to_owned();
    }
    for (prefix, directory) in [
        ("LABEL=", "by-label"),
        ("UUID=", "by-uuid"),
        ("PARTLABEL=", "by-partlabel"),
        ("PARTUUID=", "by-partuuid"),
    ] {
        if let Some(name) = what.strip_prefix(prefix) {
            return format!("/dev/disk/{directory}/{name}");
        }
    }
    what.to_owned()
}

/// The name that systemd demands of a mount's unit (systemd.unit(5), on escaping paths).
fn unit_name(place: &str) -> String {
    let parts: Vec<&str> = place.split('/').filter(|part| !part.is_empty()).collect();
    let path = parts.join("/");
    if path.is_empty() {
        return "-.mount".to_owned();
    }
    let mut name = String::new();
    for (position, byte) in path.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if position == 0 => name.push_str("\\x2e"),
            b'.' | b'_' | b':' => name.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
            byte => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    name.push_str(".mount");
    name
}
