//! Lays out an Ignition config: files, users, disks, and the unit that runs kubeadm (contract 3.9).
//!
//! Ignition has no commands: they go into a script that a unit runs. The unit and the script have the names that users override
//! with `additionalConfig`.

mod additional;
mod disk;
mod json;

use capstan_sdk::bootstrap::SecretEncoding;
use serde_json::Value;

use self::json::Json;
use crate::cloud_config::SENTINEL;
use crate::data::{Data, kubeadm_command};
use crate::file::{Content, File};
use crate::files::{configuration_path, files};
use crate::needs::user_material;
use crate::question::{Materials, Piece, Question};
use crate::refusal::Refusal;
use crate::report;
use crate::signer;
use crate::yaml::{Part, Writer};

/// The oldest version of the config's format that has all that is used, so that most readers take it.
const VERSION: &str = "3.0.0";
const SCRIPT: &str = "/etc/kubeadm.sh";

/// The machine's data.
pub(crate) fn ignition(question: &Question<'_>, materials: &Materials) -> Result<Data, Refusal> {
    if !question.list("/bootCommands").is_empty() {
        return Err(unsupported(
            "bootCommands",
            "put the commands into a systemd unit of ignition.containerLinuxConfig.additionalConfig",
        ));
    }
    time_is_kept_or_left(question)?;
    let mut storage = Json::Map(disk::storage(question)?);
    // Later files replace earlier ones of the same path, as they would on a cloud-config's machine.
    let mut list = Json::List(Vec::new());
    let script = File::of_root(
        SCRIPT,
        "0700",
        Content::Text(script(question, signer::command(question, materials)?)),
    );
    let all = sudoers(question)
        .into_iter()
        .chain(password_users(question))
        .chain(time_file(question))
        .chain(files(question, materials)?)
        .chain(report::files(question))
        .chain([script]);
    for file in all {
        list.merge(Json::List(vec![entry(file)?]));
    }
    storage.merge(Json::map([("files", list)]));
    let mut config = Json::map([("ignition", Json::map([("version", Json::text(VERSION))]))]);
    let users = users(question, materials)?;
    if !users.is_empty() {
        config.merge(Json::map([(
            "passwd",
            Json::map([("users", Json::List(users))]),
        )]));
    }
    config.merge(Json::map([
        ("storage", storage),
        (
            "systemd",
            Json::map([("units", Json::List(units(question)?))]),
        ),
    ]));
    let mut ignored = None;
    if let Some(text) = question.text("/ignition/containerLinuxConfig/additionalConfig") {
        let strict = question
            .spec
            .pointer("/ignition/containerLinuxConfig/strict")
            .and_then(Value::as_bool)
            == Some(true);
        let additional = additional::translate(text, strict)?;
        config.merge(additional.config);
        ignored = additional.ignored;
    }
    let mut writer = Writer::default();
    config.write(&mut writer, 0);
    writer.text("\n");
    Ok(Data {
        format: "ignition",
        parts: writer.into_parts(),
        ignored,
    })
}

/// What Ignition cannot do.
fn unsupported(field: &str, way_out: &str) -> Refusal {
    Refusal::object(
        "FieldUnsupportedByIgnition",
        format!(
            "{field} has no place in an Ignition config: {way_out}, or use format: cloud-config"
        ),
    )
}

fn entry(file: File) -> Result<Json, Refusal> {
    let what = format!("file {}", file.path);
    let mut entries = vec![("path".to_owned(), Json::text(file.path))];
    if let Some(owner) = &file.owner {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        for (field, name) in [("user", user.trim()), ("group", group.trim())] {
            if !name.is_empty() {
                entries.push((field.to_owned(), Json::map([("name", Json::text(name))])));
            }
        }
    }
    if let Some(permissions) = &file.permissions {
        let digits = permissions.trim_start_matches("0o");
        let mode = u32::from_str_radix(digits, 8).map_err(|_| {
            Refusal::object(
                "PermissionsInvalid",
                format!("{what}: permissions {permissions:?} must be octal digits, such as 0644"),
            )
        })?;
        entries.push(("mode".to_owned(), Json::Literal(mode.to_string())));
    }
    let source = match (file.content, file.encoding.as_deref()) {
        (_, Some("gzip" | "gzip+base64")) => {
            return Err(unsupported(
                &format!("{what}: encoding gzip"),
                "use encoding: base64",
            ));
        }
        (Content::Text(text), Some("base64")) => {
            let text: String = text.split_whitespace().collect();
            Json::Parts(vec![Part::Text(format!("data:;base64,{text}"))])
        }
        (Content::Text(text), _) => Json::data_url(&text),
        (Content::Secret(handle), encoding) => Json::Parts(vec![
            Part::Text("data:;base64,".to_owned()),
            Part::Secret {
                handle,
                // What is base64 already only has to keep out of the JSON's way: the host leaves out the white space of a URL.
                encoding: if encoding == Some("base64") {
                    SecretEncoding::JsonString
                } else {
                    SecretEncoding::Base64
                },
            },
        ]),
        (Content::Documents(documents), _) => Json::data_url_of(Content::of_documents(&documents)),
    };
    let source = Json::map([("source", source)]);
    if file.append {
        entries.push(("append".to_owned(), Json::List(vec![source])));
    } else {
        entries.push(("overwrite".to_owned(), Json::bool(true)));
        entries.push(("contents".to_owned(), source));
    }
    Ok(Json::Map(entries))
}

/// What runs kubeadm, once: the configuration is moved away when it has succeeded, and the unit only runs while it is there.
pub(crate) fn script(question: &Question<'_>, prepare: Option<String>) -> String {
    let commands = |pointer: &str| {
        let list = question.list(pointer).iter().filter_map(Value::as_str);
        list.map(|command| format!("{}\n", command.trim_end_matches('\n')))
            .collect::<String>()
    };
    format!(
        "#!/bin/bash\nset -e\n{first}{before}{prepare}{kubeadm}{otherwise}\n\
         mkdir -p /run/cluster-api\necho success > {SENTINEL}\n\
         mv {configuration} /tmp/\n{after}",
        first = report::first(question).map_or_else(String::new, |first| format!("{first}\n")),
        before = commands("/preKubeadmCommands"),
        prepare = prepare
            .map(|command| format!("{command}\n"))
            .unwrap_or_default(),
        kubeadm = kubeadm_command(question),
        otherwise = report::otherwise(question),
        configuration = configuration_path(question),
        after = commands("/postKubeadmCommands"),
    )
}

fn units(question: &Question<'_>) -> Result<Vec<Json>, Refusal> {
    let unit = |name: &str, contents: Option<String>| {
        let mut entries = vec![
            ("name".to_owned(), Json::text(name)),
            ("enabled".to_owned(), Json::bool(true)),
        ];
        entries.extend(contents.map(|contents| ("contents".to_owned(), Json::Text(contents))));
        Json::Map(entries)
    };
    let kubeadm = format!(
        "[Unit]\nDescription=Makes a node of this machine with kubeadm, once\n\
         ConditionPathExists={}\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=oneshot\nExecStart={SCRIPT}\n\n[Install]\nWantedBy=multi-user.target\n",
        configuration_path(question)
    );
    let mut units = vec![unit("kubeadm.service", Some(kubeadm))];
    if keeps_time(question) {
        units.push(unit("ntpd.service", None));
    }
    for (name, contents) in disk::mounts(question)? {
        units.push(unit(&name, Some(contents)));
    }
    Ok(units)
}

fn keeps_time(question: &Question<'_>) -> bool {
    question.spec.pointer("/ntp/enabled") == Some(&Value::Bool(true))
}

/// There is a unit to switch on, and none whose name is known to switch off.
fn time_is_kept_or_left(question: &Question<'_>) -> Result<(), Refusal> {
    if keeps_time(question) || question.spec.get("ntp").is_none() {
        return Ok(());
    }
    if question.spec.pointer("/ntp/enabled").is_some() {
        let way_out = "leave ntp out, and mask the image's unit in ignition.containerLinuxConfig.additionalConfig";
        return Err(unsupported("ntp.enabled: false", way_out));
    }
    let way_out = "set ntp.enabled: true";
    Err(unsupported("ntp.servers without ntp.enabled", way_out))
}

/// The servers that `ntpd` asks; it answers nobody else's questions about itself.
fn time_file(question: &Question<'_>) -> Option<File> {
    let servers = question.list("/ntp/servers");
    if !keeps_time(question) || servers.is_empty() {
        return None;
    }
    let mut text = String::new();
    for server in servers.iter().filter_map(Value::as_str) {
        text.push_str(&format!("server {server}\n"));
    }
    text.push_str(
        "restrict default nomodify nopeer noquery notrap limited kod\nrestrict 127.0.0.1\nrestrict [::1]\n",
    );
    Some(File::of_root("/etc/ntp.conf", "0644", Content::Text(text)))
}

/// Rules for users that may act as others.
fn sudoers(question: &Question<'_>) -> Vec<File> {
    let text = |user: &Value, field: &str| user.get(field)?.as_str().map(str::to_owned);
    let rule = |user: &Value| Some((text(user, "name")?, text(user, "sudo")?));
    let rules = question.list("/users").iter().filter_map(rule);
    rules
        .map(|(name, rule)| {
            let content = Content::Text(format!("{name} {rule}\n"));
            File::of_root(format!("/etc/sudoers.d/{name}"), "0440", content)
        })
        .collect()
}

/// Lets users log in with their password that are not locked.
fn password_users(question: &Question<'_>) -> Option<File> {
    let users = question.list("/users").iter();
    let names: Vec<&str> = users
        .filter(|user| user.get("lockPassword") == Some(&Value::Bool(false)))
        .filter_map(|user| user.get("name")?.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        let text = format!(
            "Match User {}\n  PasswordAuthentication yes\n",
            names.join(",")
        );
        File::of_root(
            "/etc/ssh/sshd_config.d/10-password-users.conf",
            "0600",
            Content::Text(text),
        )
    })
}

fn users(question: &Question<'_>, materials: &Materials) -> Result<Vec<Json>, Refusal> {
    const NAMES: [(&str, &str); 6] = [
        ("name", "name"),
        ("gecos", "gecos"),
        ("homeDir", "homeDir"),
        ("primaryGroup", "primaryGroup"),
        ("shell", "shell"),
        ("sshAuthorizedKeys", "sshAuthorizedKeys"),
    ];
    let mut users = Vec::new();
    for (position, user) in question.list("/users").iter().enumerate() {
        if user.get("inactive") == Some(&Value::Bool(true)) {
            return Err(unsupported(
                &format!("users[{position}].inactive"),
                "leave the user out",
            ));
        }
        let mut entries: Vec<(String, Json)> = NAMES
            .iter()
            .filter_map(|(from, to)| Some(((*to).to_owned(), Json::from(user.get(from)?.clone()))))
            .collect();
        if let Some(groups) = user.get("groups").and_then(Value::as_str) {
            let names = groups.split(',').map(str::trim);
            let names = names.filter(|name| !name.is_empty()).map(Json::text);
            entries.push(("groups".to_owned(), Json::List(names.collect())));
        }
        // A user without a hash has no password to log in with: what locking means.
        if user.get("lockPassword") != Some(&Value::Bool(true)) {
            if let Some(hash) = user.get("passwd").and_then(Value::as_str) {
                entries.push(("passwordHash".to_owned(), Json::text(hash)));
            } else if user.get("passwdFrom").is_some() {
                let hash = match materials.piece(&user_material(position), "value")? {
                    Piece::Text(text) => Json::text(text.trim_end_matches('\n')),
                    Piece::Secret(handle) => Json::Parts(vec![Part::Secret {
                        handle: *handle,
                        encoding: SecretEncoding::JsonString,
                    }]),
                };
                entries.push(("passwordHash".to_owned(), hash));
            }
        }
        users.push(Json::Map(entries));
    }
    Ok(users)
}
