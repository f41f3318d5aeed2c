//! Lays out the cloud-config: files, commands, users, disks, and the line that runs kubeadm (contract 3.9).

use serde_json::{Value, json};

use crate::data::kubeadm_command;
use crate::file::{Content, File};
use crate::files::files;
use crate::needs::user_material;
use crate::question::{Materials, Piece, Question};
use crate::refusal::Refusal;
use crate::report;
use crate::signer;
use crate::yaml::{Node, Part, Writer};

/// What a machine writes when kubeadm has succeeded (contract 2.5).
/// Says that the machine is a node.
pub(crate) const SENTINEL: &str = "/run/cluster-api/bootstrap-success.complete";

/// The machine's data, in pieces.
pub(crate) fn cloud_config(
    question: &Question<'_>,
    materials: &Materials,
) -> Result<Vec<Part>, Refusal> {
    let mut written: Vec<Node> = files(question, materials)?.into_iter().map(file).collect();
    // Its directory must exist before the sentinel is written there, also where `mkdir -p` does not.
    written.push(file(File::of_root(
        "/run/cluster-api/placeholder",
        "0640",
        Content::Text(
            "Makes sure that this directory exists on every operating system.\n".to_owned(),
        ),
    )));
    written.extend(report::files(question).into_iter().map(file));
    let mut entries = vec![("write_files".to_owned(), Node::List(written))];
    let commands = |pointer: &str| {
        question
            .list(pointer)
            .iter()
            .cloned()
            .map(Node::from)
            .collect::<Vec<_>>()
    };
    let boot = commands("/bootCommands");
    if !boot.is_empty() {
        entries.push(("bootcmd".to_owned(), Node::List(boot)));
    }
    let mut run: Vec<Node> = report::first(question)
        .map(Node::text)
        .into_iter()
        .collect();
    run.extend(commands("/preKubeadmCommands"));
    run.extend(signer::command(question, materials)?.map(Node::text));
    run.push(Node::text(format!(
        "{} && echo success > {SENTINEL}{}",
        kubeadm_command(question),
        report::otherwise(question)
    )));
    for command in commands("/postKubeadmCommands") {
        run.push(command);
        run.extend(report::between(question).map(Node::text));
    }
    entries.push(("runcmd".to_owned(), Node::List(run)));
    entries.extend(time(question));
    entries.extend(users(question, materials)?);
    entries.extend(disks(question)?);
    let mut writer = Writer::default();
    writer.text("## template: jinja\n#cloud-config\n\n");
    writer.document(&Node::Map(entries), 0);
    Ok(writer.into_parts())
}

fn file(file: File) -> Node {
    let mut encoding = file.encoding;
    let content = match file.content {
        Content::Text(text) => Node::Text(text),
        Content::Documents(documents) => Node::Documents(documents),
        // What gzip promises is not text, so it goes as base64.
        Content::Secret(handle) if encoding.as_deref() == Some("gzip") => {
            encoding = Some("gzip+base64".to_owned());
            Node::SecretBase64(handle)
        }
        Content::Secret(handle) => Node::SecretBlock { handle, chomp: "" },
    };
    let mut entries = vec![("path".to_owned(), Node::text(file.path))];
    let fields = [
        ("owner", file.owner),
        ("permissions", file.permissions),
        ("encoding", encoding),
    ];
    entries.extend(
        fields
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), Node::Text(value?)))),
    );
    if file.append {
        entries.push(("append".to_owned(), Node::bool(true)));
    }
    entries.push(("content".to_owned(), content));
    Node::Map(entries)
}

fn time(question: &Question<'_>) -> Option<(String, Node)> {
    let ntp = question.spec.get("ntp")?;
    // What is not given is cloud-init's default: servers alone switch it on.
    let given = ["enabled", "servers"].into_iter();
    let fields: serde_json::Map<String, Value> = given
        .filter_map(|field| Some((field.to_owned(), ntp.get(field)?.clone())))
        .collect();
    Some(("ntp".to_owned(), Node::from(fields)))
}

fn users(
    question: &Question<'_>,
    materials: &Materials,
) -> Result<Option<(String, Node)>, Refusal> {
    const NAMES: [(&str, &str); 9] = [
        ("name", "name"),
        ("gecos", "gecos"),
        ("groups", "groups"),
        ("homeDir", "homedir"),
        ("lockPassword", "lock_passwd"),
        ("passwd", "passwd"),
        ("primaryGroup", "primary_group"),
        ("shell", "shell"),
        ("sudo", "sudo"),
    ];
    let mut users = Vec::new();
    for (position, user) in question.list("/users").iter().enumerate() {
        let mut entries: Vec<(String, Node)> = NAMES
            .iter()
            .filter_map(|(from, to)| Some(((*to).to_owned(), Node::from(user.get(from)?.clone()))))
            .collect();
        if user.get("inactive").and_then(Value::as_bool) == Some(true) {
            // Days after the password's end, as text: anything else has no effect on cloud-init.
            entries.push(("inactive".to_owned(), Node::text("0")));
        }
        if user.get("passwdFrom").is_some() {
            let hash = match materials.piece(&user_material(position), "value")? {
                Piece::Text(text) => Node::text(text.trim_end_matches('\n')),
                Piece::Secret(handle) => Node::SecretBlock {
                    handle: *handle,
                    chomp: "-",
                },
            };
            entries.push(("passwd".to_owned(), hash));
        }
        if let Some(keys) = user.get("sshAuthorizedKeys") {
            entries.push(("ssh_authorized_keys".to_owned(), Node::from(keys.clone())));
        }
        users.push(Node::Map(entries));
    }
    Ok((!users.is_empty()).then(|| ("users".to_owned(), Node::List(users))))
}

fn disks(question: &Question<'_>) -> Result<Vec<(String, Node)>, Refusal> {
    let mut entries = Vec::new();
    let mut devices = Vec::new();
    for (position, partition) in question.list("/diskSetup/partitions").iter().enumerate() {
        let device = partition
            .get("device")
            .and_then(Value::as_str)
            .unwrap_or_default();
        devices.push((device.to_owned(), partition_entry(partition, position)?));
    }
    if !devices.is_empty() {
        entries.push(("disk_setup".to_owned(), Node::Map(devices)));
    }
    let systems: Vec<Node> = question
        .list("/diskSetup/filesystems")
        .iter()
        .map(file_system_entry)
        .collect();
    if !systems.is_empty() {
        entries.push(("fs_setup".to_owned(), Node::List(systems)));
    }
    let mounts = question.list("/mounts");
    if !mounts.is_empty() {
        entries.push(("mounts".to_owned(), Node::from(json!(mounts))));
    }
    Ok(entries)
}

fn partition_entry(partition: &Value, position: usize) -> Result<Node, Refusal> {
    let table = partition.get("tableType").and_then(Value::as_str);
    let layout = match partition.get("diskLayout").and_then(Value::as_array) {
        Some(parts) => {
            let rows: Result<Vec<Value>, Refusal> = parts
                .iter()
                .map(|part| layout_row(part, table.unwrap_or("mbr"), position))
                .collect();
            Value::Array(rows?)
        }
        None => partition
            .get("layout")
            .cloned()
            .unwrap_or(Value::Bool(false)),
    };
    let mut entries = Vec::new();
    entries.extend(table.map(|table| ("table_type".to_owned(), Node::text(table))));
    entries.push(("layout".to_owned(), Node::from(layout)));
    entries.extend(
        partition
            .get("overwrite")
            .map(|value| ("overwrite".to_owned(), Node::from(value.clone()))),
    );
    Ok(Node::Map(entries))
}

/// One partition as cloud-init wants it: the percentage, with the type's code when there is one.
fn layout_row(part: &Value, table: &str, position: usize) -> Result<Value, Refusal> {
    let percentage = part.get("percentage").cloned().unwrap_or(Value::Null);
    let Some(name) = part.get("partitionType").and_then(Value::as_str) else {
        return Ok(percentage);
    };
    let refuse = |what: &str| {
        let message = format!(
            "diskSetup.partitions[{position}].diskLayout: {name} {what}: choose another partitionType or tableType"
        );
        Err(Refusal::object("PartitionTypeInvalid", message))
    };
    // Numbers where there are such: older versions of cloud-init take nothing else without a warning.
    let code = match (name, table) {
        ("Linux", _) => json!(83),
        ("LinuxSwap", _) => json!(82),
        ("LinuxRAID", _) => json!("fd"),
        ("LVM", _) => json!("8e"),
        ("Fat32", "gpt") | ("NTFS", "gpt" | "mbr") => json!("07"),
        ("Fat32", _) => json!("0c"),
        ("LinuxExtended", "gpt") => return refuse("does not exist in a gpt partition table"),
        ("LinuxExtended", _) => json!(85),
        (guid, "gpt") => json!(guid),
        _ => return refuse("needs a gpt partition table"),
    };
    Ok(json!([percentage, code]))
}

fn file_system_entry(system: &Value) -> Node {
    const NAMES: [(&str, &str); 7] = [
        ("label", "label"),
        ("filesystem", "filesystem"),
        ("device", "device"),
        ("partition", "partition"),
        ("overwrite", "overwrite"),
        ("replaceFS", "replace_fs"),
        ("extraOpts", "extra_opts"),
    ];
    let present = NAMES
        .iter()
        .filter_map(|(from, to)| Some(((*to).to_owned(), Node::from(system.get(from)?.clone()))));
    Node::Map(present.collect())
}
