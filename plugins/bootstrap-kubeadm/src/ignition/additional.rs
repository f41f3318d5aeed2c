//! Translates the user's Container Linux Config into what Ignition reads.
//!
//! What it says of machines in general is translated: users, groups, files, directories, links, file systems, units. Its sections for
//! etcd, flannel, docker and updates stand for files of one distribution's versions and are refused.

use serde_json::{Map, Value, json};

use super::json::Json;
use crate::refusal::Refusal;
use crate::yaml;

const FIELD: &str = "ignition.containerLinuxConfig.additionalConfig";
/// Sections that are refused, with the way out.
const FOREIGN: [&str; 6] = [
    "docker",
    "etcd",
    "flannel",
    "locksmith",
    "update",
    "ignition",
];

/// Fields with another name in Ignition, by entry; what is not listed is not known.
const USER: [(&str, &str); 13] = [
    ("gecos", "gecos"),
    ("groups", "groups"),
    ("home_dir", "homeDir"),
    ("name", "name"),
    ("no_create_home", "noCreateHome"),
    ("no_log_init", "noLogInit"),
    ("no_user_group", "noUserGroup"),
    ("password_hash", "passwordHash"),
    ("primary_group", "primaryGroup"),
    ("shell", "shell"),
    ("ssh_authorized_keys", "sshAuthorizedKeys"),
    ("system", "system"),
    ("uid", "uid"),
];
const GROUP: [(&str, &str); 4] = [
    ("gid", "gid"),
    ("name", "name"),
    ("password_hash", "passwordHash"),
    ("system", "system"),
];
const OWNER: [(&str, &str); 2] = [("id", "id"), ("name", "name")];
const FILE_SYSTEM: [(&str, &str); 6] = [
    ("device", "device"),
    ("format", "format"),
    ("label", "label"),
    ("options", "options"),
    ("uuid", "uuid"),
    ("wipe_filesystem", "wipeFilesystem"),
];
const NODE: [(&str, &str); 3] = [
    ("mode", "mode"),
    ("overwrite", "overwrite"),
    ("path", "path"),
];
const LINK: [(&str, &str); 4] = [
    ("hard", "hard"),
    ("overwrite", "overwrite"),
    ("path", "path"),
    ("target", "target"),
];
const UNIT: [(&str, &str); 5] = [
    ("contents", "contents"),
    ("enable", "enabled"),
    ("enabled", "enabled"),
    ("mask", "mask"),
    ("name", "name"),
];
const DROPIN: [(&str, &str); 2] = [("contents", "contents"), ("name", "name")];

/// A translated config.
pub(super) struct Additional {
    /// To be merged into the machine's.
    pub(super) config: Json,
    /// Which keys were ignored, as a sentence.
    pub(super) ignored: Option<String>,
}

/// Translates. With `strict`, keys that are not known are refused.
pub(super) fn translate(text: &str, strict: bool) -> Result<Additional, Refusal> {
    let document = yaml::read(text).map_err(|why| invalid(&why))?;
    let mut translation = Translation::default();
    let config = translation.config(document)?;
    let unknown = translation.unknown;
    if strict && !unknown.is_empty() {
        return Err(invalid(&format!(
            "strict is set and these keys are not known: {}",
            unknown.join(", ")
        )));
    }
    Ok(Additional {
        config,
        ignored: (!unknown.is_empty())
            .then(|| format!("{FIELD}: ignored, not known: {}", unknown.join(", "))),
    })
}

fn invalid(why: &str) -> Refusal {
    Refusal::object("AdditionalConfigInvalid", format!("{FIELD}: {why}"))
}

#[derive(Default)]
struct Translation {
    unknown: Vec<String>,
}

impl Translation {
    fn config(&mut self, document: Value) -> Result<Json, Refusal> {
        let mut config = Json::Map(Vec::new());
        for (section, value) in object(document, "it")? {
            if FOREIGN.contains(&section.as_str()) {
                return Err(invalid(&format!(
                    "section {section} is not translated: write the files and units that it stands for"
                )));
            }
            match section.as_str() {
                "variant" => {
                    return Err(invalid(
                        "it is a Butane config: write it as Container Linux Config, without variant",
                    ));
                }
                "passwd" => config.merge(self.passwd(value)?),
                "storage" => config.merge(self.storage(value)?),
                "systemd" => config.merge(self.systemd(value)?),
                "networkd" => config.merge(self.networkd(value)?),
                _ => self.unknown.push(section),
            }
        }
        Ok(config)
    }

    /// The entries of a section's list, each by a function.
    fn each(
        &mut self,
        path: &str,
        list: Value,
        entry: impl Fn(&mut Self, &str, Map<String, Value>) -> Result<Json, Refusal>,
    ) -> Result<Json, Refusal> {
        let Value::Array(items) = list else {
            return Err(invalid(&format!("{path} must be a list")));
        };
        let items = items.into_iter().enumerate();
        let entries = items.map(|(position, item)| {
            let path = format!("{path}[{position}]");
            let fields = object(item, &path)?;
            entry(self, &path, fields)
        });
        Ok(Json::List(entries.collect::<Result<_, Refusal>>()?))
    }

    /// Takes the listed fields under their other names; the rest is unknown.
    fn renamed(
        &mut self,
        path: &str,
        fields: Map<String, Value>,
        names: &[(&str, &str)],
    ) -> Vec<(String, Json)> {
        let mut entries = Vec::new();
        for (field, value) in fields {
            match names.iter().find(|(from, _)| *from == field) {
                Some((_, to)) => entries.push(((*to).to_owned(), Json::from(value))),
                None => self.unknown.push(format!("{path}.{field}")),
            }
        }
        entries
    }

    fn passwd(&mut self, section: Value) -> Result<Json, Refusal> {
        let mut entries = Vec::new();
        for (field, list) in object(section, "passwd")? {
            let path = format!("passwd.{field}");
            let names: &[(&str, &str)] = match field.as_str() {
                "users" => &USER,
                "groups" => &GROUP,
                _ => {
                    self.unknown.push(path);
                    continue;
                }
            };
            let list = self.each(&path, list, |translation, path, fields| {
                required(path, &fields, "name")?;
                Ok(Json::Map(translation.renamed(path, fields, names)))
            })?;
            entries.push((field, list));
        }
        Ok(Json::map([("passwd", Json::Map(entries))]))
    }

    fn systemd(&mut self, section: Value) -> Result<Json, Refusal> {
        let mut entries = Vec::new();
        for (field, list) in object(section, "systemd")? {
            let path = format!("systemd.{field}");
            if field != "units" {
                self.unknown.push(path);
                continue;
            }
            let list = self.each(&path, list, |translation, path, mut fields| {
                required(path, &fields, "name")?;
                let dropins = fields.remove("dropins");
                let mut unit = translation.renamed(path, fields, &UNIT);
                if let Some(dropins) = dropins {
                    let path = format!("{path}.dropins");
                    let dropins =
                        translation.each(&path, dropins, |translation, path, fields| {
                            required(path, &fields, "name")?;
                            Ok(Json::Map(translation.renamed(path, fields, &DROPIN)))
                        })?;
                    unit.push(("dropins".to_owned(), dropins));
                }
                Ok(Json::Map(unit))
            })?;
            entries.push((field, list));
        }
        Ok(Json::map([("systemd", Json::Map(entries))]))
    }

    /// Units of networkd are files where it looks for them.
    fn networkd(&mut self, section: Value) -> Result<Json, Refusal> {
        let mut files = Vec::new();
        for (field, list) in object(section, "networkd")? {
            if field != "units" {
                self.unknown.push(format!("networkd.{field}"));
                continue;
            }
            let Value::Array(units) = list else {
                return Err(invalid("networkd.units must be a list"));
            };
            for (position, unit) in units.into_iter().enumerate() {
                let path = format!("networkd.units[{position}]");
                let mut fields = object(unit, &path)?;
                let name = required(&path, &fields, "name")?;
                let mut file = |name: &str, contents: Option<&Value>| {
                    let text = contents.and_then(Value::as_str).unwrap_or_default();
                    files.push(Json::map([
                        ("path", Json::text(format!("/etc/systemd/network/{name}"))),
                        ("overwrite", Json::bool(true)),
                        ("contents", Json::map([("source", Json::data_url(text))])),
                    ]));
                };
                if fields.contains_key("contents") {
                    file(&name, fields.get("contents"));
                }
                let dropins = fields.remove("dropins").unwrap_or_else(|| json!([]));
                for dropin in dropins.as_array().map(Vec::as_slice).unwrap_or_default() {
                    let of = dropin.get("name").and_then(Value::as_str);
                    let of = of.ok_or_else(|| invalid(&format!("{path}.dropins need names")))?;
                    file(&format!("{name}.d/{of}"), dropin.get("contents"));
                }
                fields.remove("name");
                fields.remove("contents");
                self.renamed(&path, fields, &[]);
            }
        }
        Ok(Json::map([(
            "storage",
            Json::map([("files", Json::List(files))]),
        )]))
    }

    fn storage(&mut self, section: Value) -> Result<Json, Refusal> {
        let mut entries = Vec::new();
        for (field, list) in object(section, "storage")? {
            let path = format!("storage.{field}");
            let list = match field.as_str() {
                "files" => self.each(&path, list, Self::file)?,
                "directories" => self.each(&path, list, |translation, path, fields| {
                    translation.node(path, fields, &NODE).map(Json::Map)
                })?,
                "links" => self.each(&path, list, |translation, path, fields| {
                    translation.node(path, fields, &LINK).map(Json::Map)
                })?,
                "filesystems" => self.each(&path, list, |translation, path, mut fields| {
                    // The name only served files to say where they are.
                    fields.remove("name");
                    let mount = fields.remove("mount").unwrap_or(Value::Null);
                    translation.renamed(path, fields, &[]);
                    let mount = object(mount, &format!("{path}.mount"))?;
                    Ok(Json::Map(translation.renamed(path, mount, &FILE_SYSTEM)))
                })?,
                "disks" | "raid" => {
                    return Err(invalid(&format!("{path} is not translated: use diskSetup")));
                }
                _ => {
                    self.unknown.push(path);
                    continue;
                }
            };
            entries.push((field, list));
        }
        Ok(Json::map([("storage", Json::Map(entries))]))
    }

    /// What files, directories and links have in common.
    fn node(
        &mut self,
        path: &str,
        mut fields: Map<String, Value>,
        names: &[(&str, &str)],
    ) -> Result<Vec<(String, Json)>, Refusal> {
        required(path, &fields, "path")?;
        match fields.remove("filesystem") {
            None => {}
            Some(system) if system == "root" => {}
            Some(_) => {
                return Err(invalid(&format!(
                    "{path}.filesystem: only root is translated: write a path below the mount"
                )));
            }
        }
        let owners: Vec<(&str, Value)> = ["user", "group"]
            .into_iter()
            .filter_map(|owner| Some((owner, fields.remove(owner)?)))
            .collect();
        let mut entries = self.renamed(path, fields, names);
        for (owner, value) in owners {
            let path = format!("{path}.{owner}");
            let value = self.renamed(&path, object(value, &path)?, &OWNER);
            entries.push((owner.to_owned(), Json::Map(value)));
        }
        Ok(entries)
    }

    fn file(&mut self, path: &str, mut fields: Map<String, Value>) -> Result<Json, Refusal> {
        let contents = fields.remove("contents").unwrap_or_else(|| json!({}));
        let appends = fields.remove("append") == Some(Value::Bool(true));
        let replaces = fields.contains_key("overwrite") || appends;
        let mut entries = self.node(path, fields, &NODE)?;
        let path = format!("{path}.contents");
        let source = self.contents(&path, object(contents, &path)?)?;
        if appends {
            entries.push(("append".to_owned(), Json::List(vec![source])));
        } else {
            // A Container Linux Config replaces files unless told otherwise, Ignition does not.
            if !replaces {
                entries.push(("overwrite".to_owned(), Json::bool(true)));
            }
            entries.push(("contents".to_owned(), source));
        }
        Ok(Json::Map(entries))
    }

    fn contents(&mut self, path: &str, mut contents: Map<String, Value>) -> Result<Json, Refusal> {
        let inline = contents.remove("inline");
        let remote = contents.remove("remote");
        self.renamed(path, contents, &[]);
        let Some(remote) = remote else {
            let text = match &inline {
                None => "",
                Some(text) => text
                    .as_str()
                    .ok_or_else(|| invalid(&format!("{path}.inline must be text")))?,
            };
            return Ok(Json::map([("source", Json::data_url(text))]));
        };
        let path = format!("{path}.remote");
        let mut remote = object(remote, &path)?;
        let url = required(&path, &remote, "url")?;
        let mut entries = vec![("source".to_owned(), Json::Text(url))];
        if let Some(compression) = remote.remove("compression") {
            entries.push(("compression".to_owned(), Json::from(compression)));
        }
        if let Some(verification) = remote.remove("verification") {
            let part = |field: &str| {
                let value = verification.pointer(&format!("/hash/{field}"));
                value
                    .and_then(Value::as_str)
                    .ok_or_else(|| invalid(&format!("{path}.verification.hash.{field} is missing")))
            };
            let hash = format!("{}-{}", part("function")?, part("sum")?);
            entries.push((
                "verification".to_owned(),
                Json::map([("hash", Json::Text(hash))]),
            ));
        }
        remote.remove("url");
        self.renamed(&path, remote, &[]);
        Ok(Json::Map(entries))
    }
}

fn object(value: Value, path: &str) -> Result<Map<String, Value>, Refusal> {
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        _ => Err(invalid(&format!("{path} must be a mapping"))),
    }
}

fn required(path: &str, fields: &Map<String, Value>, field: &str) -> Result<String, Refusal> {
    let text = fields.get(field).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| invalid(&format!("{path} needs {field}")))
}
