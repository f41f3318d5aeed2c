//! What is particular about Ignition: no field reaches a machine half, and the user's Container Linux Config is translated.

use super::*;

/// What people write for a distribution that is updated by image.
pub(super) const ADDITIONAL: &str = r#"
# The unit that runs kubeadm waits for the runtime.
systemd:
  units:
  - name: kubeadm.service
    enabled: true
    dropins:
    - name: 10-runtime.conf
      contents: |
        [Unit]
        Requires=containerd.service
        After=containerd.service
  - name: locksmithd.service
    mask: true
networkd:
  units:
  - name: 00-eth0.network
    contents: |
      [Match]
      Name=eth0
    dropins:
    - {name: dns.conf, contents: "[Network]\nDNS=10.0.0.2\n"}
storage:
  files:
  - path: /opt/set-hostname
    filesystem: root
    mode: 0744
    user: {id: 500}
    contents:
      inline: |
        #!/bin/sh
        hostnamectl set-hostname "$(curl -s http://169.254.169.254/hostname)"
  - path: /opt/bin/tool
    mode: 0755
    contents:
      remote:
        url: https://example.com/tool
        verification: {hash: {function: sha512, sum: abababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababab}}
  - path: /etc/hosts
    append: true
    contents: {inline: "10.0.0.2 registry\n"}
  directories:
  - {path: /srv/data, mode: 0700, group: {name: core}}
  links:
  - {path: /etc/localtime, target: ../usr/share/zoneinfo/Zulu, overwrite: yes}
  filesystems:
  - name: data
    mount: {device: /dev/sdb, format: xfs, label: data, wipe_filesystem: true, options: [-f]}
passwd:
  users:
  - name: core
    ssh_authorized_keys: [ssh-ed25519 AAAA]
    home_dir: /home/core
  groups:
  - {name: ops, gid: 1500}
"#;

fn with_additional(text: &str, strict: bool) -> Value {
    json!({"format": "ignition", "ignition": {"containerLinuxConfig": {"strict": strict, "additionalConfig": text}}})
}

fn refused(spec: &Value) -> String {
    let refusal = rendered(spec, Role::JoinWorker, "v1.36.3").unwrap_err();
    assert_eq!(refusal.remedy, Remedy::Object, "{refusal}");
    refusal.message
}

/// The text in a data URL of the config.
fn decoded(source: &Value) -> String {
    use base64::Engine as _;
    let source = source.as_str().unwrap();
    if let Some(data) = source.strip_prefix("data:;base64,") {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(data)
            .unwrap();
        return String::from_utf8(bytes).unwrap();
    }
    let mut bytes = Vec::new();
    let mut rest = source.strip_prefix("data:,").unwrap().bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits: String = rest.by_ref().take(2).map(char::from).collect();
            bytes.push(u8::from_str_radix(&digits, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn file<'a>(config: &'a Value, path: &str) -> &'a Value {
    let files = config["storage"]["files"].as_array().unwrap();
    let mut found = files.iter().filter(|file| file["path"] == path);
    let file = found.next().unwrap_or_else(|| panic!("no {path}"));
    assert!(found.next().is_none(), "{path} is there twice");
    file
}

fn ignition(spec: &Value, role: Role) -> Value {
    serde_json::from_str(&rendered(spec, role, "v1.36.3").unwrap()).unwrap()
}

#[test]
fn a_machine_gets_certificates_a_script_and_a_unit_that_runs_it_once() {
    let spec = json!({"format": "ignition", "preKubeadmCommands": ["envsubst < /etc/kubeadm.yml > /etc/kubeadm.yml.new"]});
    let config = ignition(&spec, Role::Init);
    assert_eq!(config["ignition"]["version"], "3.0.0");
    let key = file(&config, "/etc/kubernetes/pki/ca.key");
    assert_eq!(
        (&key["mode"], &key["overwrite"]),
        (&json!(0o600), &json!(true))
    );
    assert_eq!(decoded(&key["contents"]["source"]), SECRETS[1]);
    let documents = decoded(&file(&config, "/etc/kubeadm.yml")["contents"]["source"]);
    assert!(
        documents.starts_with("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"),
        "{documents}"
    );
    assert!(documents.contains("\n---\napiVersion"), "{documents}");
    let script = decoded(&file(&config, "/etc/kubeadm.sh")["contents"]["source"]);
    let steps = [
        "envsubst",
        "kubeadm init --config /etc/kubeadm.yml\n",
        "bootstrap-success.complete\n",
        "mv /etc/kubeadm.yml /tmp/",
    ];
    let places: Vec<usize> = steps
        .iter()
        .map(|step| script.find(step).unwrap())
        .collect();
    assert!(places.is_sorted(), "{script}");
    let unit = &config["systemd"]["units"][0];
    assert_eq!(unit["name"], "kubeadm.service");
    let contents = unit["contents"].as_str().unwrap();
    assert!(
        contents.contains("ConditionPathExists=/etc/kubeadm.yml\n"),
        "{contents}"
    );
    let join = ignition(&json!({"format": "ignition"}), Role::JoinWorker);
    let documents = decoded(&file(&join, "/etc/kubeadm.yml")["contents"]["source"]);
    assert!(
        documents.contains(&format!("token: \"{}\"", SECRETS[5])),
        "{documents}"
    );
}

#[test]
fn secrets_keep_every_byte() {
    let from = json!({"secret": {"name": "s", "key": "k"}});
    let spec = json!({"format": "ignition",
        "files": [{"path": "/etc/a", "contentFrom": from}], "users": [{"name": "root", "passwdFrom": from}]});
    let config = ignition(&spec, Role::JoinWorker);
    assert_eq!(
        decoded(&file(&config, "/etc/a")["contents"]["source"]),
        SECRETS[6]
    );
    assert_eq!(
        config["passwd"]["users"][0]["passwordHash"],
        SECRETS[7].trim_end()
    );
}

#[test]
fn a_locked_user_has_no_password() {
    let spec = json!({"format": "ignition", "users": [{"name": "ops", "passwd": "$6$x", "lockPassword": true}]});
    let config = ignition(&spec, Role::JoinWorker);
    assert_eq!(config["passwd"]["users"][0], json!({"name": "ops"}));
}

#[test]
fn what_ignition_cannot_do_is_refused_by_field() {
    let disk = |layout: Value| json!({"format": "ignition", "diskSetup": {"partitions": [layout]}});
    let system = |field: &str| json!({"format": "ignition", "diskSetup": {"filesystems": [{"device": "/dev/sdb", "filesystem": "ext4", field: "x"}]}});
    for (spec, field) in [
        (
            json!({"format": "ignition", "bootCommands": ["x"]}),
            "bootCommands",
        ),
        (
            json!({"format": "ignition", "users": [{"name": "a", "inactive": true}]}),
            "users[0].inactive",
        ),
        (
            json!({"format": "ignition", "files": [{"path": "/a", "content": "x", "encoding": "gzip"}]}),
            "file /a: encoding gzip",
        ),
        (
            json!({"format": "ignition", "files": [{"path": "/a", "content": "x", "permissions": "rw"}]}),
            "permissions \"rw\"",
        ),
        (
            disk(json!({"device": "/dev/sdb", "layout": true, "tableType": "mbr"})),
            "tableType",
        ),
        (
            disk(json!({"device": "/dev/sdb", "diskLayout": [{"percentage": 50}]})),
            "diskLayout",
        ),
        (
            disk(
                json!({"device": "/dev/sdb", "diskLayout": [{"percentage": 100, "partitionType": "LinuxExtended"}]}),
            ),
            "partitionType",
        ),
        (system("replaceFS"), "replaceFS"),
        (system("partition"), "partition"),
        (
            json!({"format": "ignition", "mounts": [["/dev/sdb", "swap"]]}),
            "mounts[0]",
        ),
    ] {
        let message = refused(&spec);
        assert!(message.contains(field), "{field}: {message}");
    }
}

#[test]
fn what_a_mount_or_the_time_would_lose_is_refused_by_field() {
    let mount = |fields: Value| json!({"format": "ignition", "mounts": [fields]});
    for (spec, field) in [
        (
            mount(json!(["/dev/sdb", "/srv", "noatime"])),
            "mounts[0][2]",
        ),
        (
            mount(json!(["/dev/sdb", "/srv", "defaults"])),
            "mounts[0][2]",
        ),
        (
            mount(json!(["/dev/sdb", "/srv", "ro,nofail"])),
            "mounts[0][2]",
        ),
        (
            mount(json!(["/dev/sdb", "/srv", "x-systemd.automount"])),
            "mounts[0][2]",
        ),
        (
            mount(json!(["/dev/sdb", "/srv", "mode=0700"])),
            "mounts[0][2]",
        ),
        (
            mount(json!(["/dev/sdb", "/srv", "ext4", "ro", "0", "2"])),
            "mounts[0][5]",
        ),
        (
            json!({"format": "ignition", "ntp": {"enabled": false}}),
            "ntp.enabled: false",
        ),
        (
            json!({"format": "ignition", "ntp": {"servers": ["a"]}}),
            "ntp.servers",
        ),
    ] {
        let message = refused(&spec);
        assert!(message.contains(field), "{field}: {message}");
    }
}

#[test]
fn the_users_own_config_is_merged_over_ours() {
    let config = ignition(&with_additional(ADDITIONAL, true), Role::JoinWorker);
    let unit = &config["systemd"]["units"][0];
    assert!(
        unit["contents"]
            .as_str()
            .unwrap()
            .contains("ExecStart=/etc/kubeadm.sh")
    );
    assert_eq!(unit["dropins"][0]["name"], "10-runtime.conf");
    let hostname = file(&config, "/opt/set-hostname");
    assert_eq!(
        (&hostname["mode"], &hostname["user"]["id"]),
        (&json!(0o744), &json!(500))
    );
    let tool = file(&config, "/opt/bin/tool");
    assert_eq!(
        tool["contents"],
        json!({
            "source": "https://example.com/tool",
            "verification": {"hash": format!("sha512-{}", "ab".repeat(64))},
        })
    );
    assert_eq!(
        decoded(&file(&config, "/etc/hosts")["append"][0]["source"]),
        "10.0.0.2 registry\n"
    );
    assert_eq!(
        decoded(
            &file(&config, "/etc/systemd/network/00-eth0.network.d/dns.conf")["contents"]["source"]
        ),
        "[Network]\nDNS=10.0.0.2\n"
    );
    assert_eq!(config["storage"]["links"][0]["overwrite"], true);
    assert_eq!(config["storage"]["filesystems"][0]["wipeFilesystem"], true);
    assert_eq!(config["passwd"]["groups"][0]["gid"], 1500);
    // A unit of the same name is the user's in what it says.
    let text = "systemd: {units: [{name: kubeadm.service, contents: mine}]}";
    let config = ignition(&with_additional(text, true), Role::JoinWorker);
    assert_eq!(
        config["systemd"]["units"][0],
        json!({"name": "kubeadm.service", "enabled": true, "contents": "mine"})
    );
}

#[test]
fn unknown_keys_are_refused_when_strict_and_named_otherwise() {
    let text = "systemd: {units: [{name: a.service, enabeld: true}]}\nstorge: {}";
    let message = refused(&with_additional(text, true));
    assert!(
        message.contains("storge, systemd.units[0].enabeld"),
        "{message}"
    );
    let spec = with_additional(text, false);
    let cluster = cluster();
    let question = question(&cluster, &spec, Role::JoinWorker, "v1.36.3");
    let ignored = crate::data::data(&question, &materials())
        .unwrap()
        .ignored
        .unwrap();
    assert!(
        ignored.contains("storge, systemd.units[0].enabeld"),
        "{ignored}"
    );
}

#[test]
fn what_is_not_translated_says_so() {
    for (text, says) in [
        ("etcd: {version: 3.0.0}", "section etcd"),
        ("locksmith: {reboot_strategy: off}", "section locksmith"),
        ("variant: flatcar\nversion: 1.0.0", "Butane"),
        ("storage: {disks: [{device: /dev/sdb}]}", "diskSetup"),
        (
            "storage: {files: [{path: /a, filesystem: oem}]}",
            "only root",
        ),
        (
            "storage: {files: [{mode: 0644}]}",
            "storage.files[0] needs path",
        ),
        ("storage: {files: no}", "storage.files must be a list"),
        ("systemd: [", "not YAML"),
        ("systemd: &a {}\npasswd: *a", "aliases"),
        ("systemd: {}\nsystemd: {}", "twice"),
        ("a: !!binary aGVsbG8=", "tags"),
        ("{}\n---\n{}", "more than one document"),
    ] {
        let message = refused(&with_additional(text, false));
        assert!(message.contains(says), "{text}: {message}");
    }
}
