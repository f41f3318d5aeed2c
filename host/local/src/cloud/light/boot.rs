//! A light machine's boots: the first runs the user data, every later one brings back what the machine was.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::cluster::{Cluster, Kubelet};
use super::etcd::Etcd;
use super::etcd::port::{self, Port};
use super::kubeadm::{KubeadmConfig, NodeRegistration};
use super::pki::{Authority, Clients};
use super::server::ApiServer;
use super::trust::{self, KubeletTrust, Member};
use super::{API_PORT, Light, init, join, k3s, object, report};
use crate::cloud::backend::{BootOutcome, MachineSpec};
use crate::cloud::console::Console;
use crate::cloud::userdata::UserData;

/// How often kubeadm asks etcd.
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// The user data of a machine, and what goes with it while it is interpreted.
pub(crate) struct Boot<'a> {
    /// The backend.
    pub(crate) light: &'a Light,
    /// The machine.
    pub(crate) machine: &'a MachineSpec,
    /// Its console.
    pub(crate) console: &'a Console,
    /// Its user data.
    pub(crate) data: UserData,
}

/// What a line of `runcmd` means to a light machine.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Init(String),
    Join(String),
    /// kubeadm with arguments that a light machine cannot follow.
    Bad(String),
    Other,
}

/// Runs the user data to its end.
pub(crate) async fn first(light: &Light, machine: &MachineSpec, console: &Console) -> BootOutcome {
    console.line(format!(
        "booting {} ({}) with image {}",
        machine.facts.hostname, machine.facts.instance_id, machine.version
    ));
    if machine.user_data.is_empty() {
        console.line("cloud-init: no user data, nothing to do");
        return BootOutcome::Done("no user data".into());
    }
    let mut data = match UserData::parse(&machine.user_data, &machine.facts) {
        Ok(data) => data,
        Err(error) => {
            console.line(format!("cloud-init: ERROR: {error}"));
            return BootOutcome::Failed(error.to_string());
        }
    };
    if let Err(error) = k3s::translate(&mut data) {
        console.line(format!("k3s: ERROR: {error}"));
        return BootOutcome::Failed(error);
    }
    for (path, file) in &data.files {
        console.line(format!(
            "write_files: {path} ({} bytes, mode {}, owner {})",
            file.content.len(),
            file.permissions,
            file.owner
        ));
    }
    for user in &data.users {
        console.line(format!("users: {}", user.name));
    }
    for (part, _) in &data.others {
        console.line(format!(
            "cloud-init: {part}: noted, without effect on a light machine"
        ));
    }
    for command in &data.boot_commands {
        console.line(format!(
            "bootcmd: {}: noted, without effect on a light machine",
            first_words(command)
        ));
    }
    let boot = Boot {
        light,
        machine,
        console,
        data,
    };
    let outcome = boot.run_commands().await;
    match &outcome {
        BootOutcome::Done(message) => console.line(format!("cloud-init: finished: {message}")),
        BootOutcome::Failed(message) => {
            console.line(format!("cloud-init: finished with errors: {message}"))
        }
    }
    outcome
}

/// The first words of a command: enough to recognise it, too little to leak what follows.
fn first_words(command: &str) -> String {
    let line = command.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().take(3).collect();
    let shown = words.join(" ");
    if shown.len() < command.trim().len() {
        format!("{shown} ...")
    } else {
        shown
    }
}

fn parse_command(line: &str, data: &UserData) -> Command {
    if k3s::is_start(line) {
        let path = k3s::TRANSLATED.to_owned();
        return if k3s::begins(data) {
            Command::Init(path)
        } else {
            Command::Join(path)
        };
    }
    let mut words = line.split_whitespace().peekable();
    while words.peek().is_some_and(|word| {
        *word == "sudo" || *word == "exec" || (word.contains('=') && !word.starts_with('-'))
    }) {
        words.next();
    }
    let program = words.next().unwrap_or_default();
    if program != "kubeadm" && !program.ends_with("/kubeadm") {
        return Command::Other;
    }
    let verb = words.next().unwrap_or_default().to_owned();
    if verb != "init" && verb != "join" {
        return Command::Other;
    }
    let mut config = None;
    while let Some(word) = words.next() {
        if word == "--config" {
            config = words.next().map(str::to_owned);
        } else if let Some(path) = word.strip_prefix("--config=") {
            config = Some(path.to_owned());
        }
    }
    match (config, verb.as_str()) {
        (Some(path), "init") => Command::Init(path),
        (Some(path), _) => Command::Join(path),
        (None, verb) => Command::Bad(format!(
            "kubeadm {verb} without --config: a light machine only follows a configuration file"
        )),
    }
}

impl Boot<'_> {
    async fn run_commands(&self) -> BootOutcome {
        let mut done = Vec::new();
        let mut failure = None;
        for line in &self.data.commands {
            let (line, otherwise) = line.split_once("||").unwrap_or((line, ""));
            for part in line
                .split("&&")
                .map(str::trim)
                .filter(|part| !part.is_empty())
            {
                match self.run(part).await {
                    Ok(Some(what)) => done.push(what),
                    Ok(None) => {}
                    Err(error) => {
                        self.console.line(format!("kubeadm: ERROR: {error}"));
                        failure.get_or_insert(error);
                        report::run(self, otherwise.trim()).await;
                        break;
                    }
                }
            }
        }
        match (failure, done.is_empty()) {
            (Some(error), _) => BootOutcome::Failed(error),
            (None, true) => BootOutcome::Done("the user data has no kubeadm command".into()),
            (None, false) => BootOutcome::Done(done.join("; ")),
        }
    }

    async fn run(&self, command: &str) -> Result<Option<String>, String> {
        match parse_command(command, &self.data) {
            Command::Init(path) => {
                self.console
                    .line(format!("runcmd: kubeadm init --config {path}"));
                let config = self.config(&path)?;
                init::init(self, &config).await.map(Some)
            }
            Command::Join(path) => {
                self.console
                    .line(format!("runcmd: kubeadm join --config {path}"));
                let config = self.config(&path)?;
                join::join(self, &path, &config).await.map(Some)
            }
            Command::Bad(why) => Err(why),
            Command::Other => {
                match command.split_once('>') {
                    Some((head, path)) if head.trim_start().starts_with("echo ") => {
                        self.console.line(format!(
                            "runcmd: wrote {}",
                            path.trim_start_matches('>').trim()
                        ));
                    }
                    _ => self.console.line(format!(
                        "runcmd: {}: executed without effect on a light machine",
                        first_words(command)
                    )),
                }
                Ok(None)
            }
        }
    }

    fn config(&self, path: &str) -> Result<KubeadmConfig, String> {
        if !self.data.files.contains_key(path) {
            return Err(format!("open {path}: no such file or directory"));
        }
        let text = self
            .data
            .text(path)
            .ok_or_else(|| format!("{path} is not text"))?;
        KubeadmConfig::parse(path, text)
    }

    /// When kubeadm gives up waiting.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now()
            .checked_add(self.light.tempo.kubeadm_timeout)
            .unwrap_or_else(Instant::now)
    }

    /// Makes this machine a member of etcd, without a vote until it runs, where etcd runs on the machines.
    pub(crate) async fn join_etcd(
        &self,
        cluster: &Cluster,
        config: &KubeadmConfig,
        node: &str,
    ) -> Result<(), String> {
        if etcd_authority(&self.data, config)?.is_some() {
            let instance = &self.machine.facts.instance_id;
            let add =
                || cluster.with_etcd(|etcd, running| etcd.add_learner(running, instance, node));
            self.patiently("adding a member to etcd", add).await?;
            self.console.line("etcd: this machine is a member");
        }
        Ok(())
    }

    /// Waits until all members of etcd answer: kubeadm adds none beside one that does not.
    pub(crate) async fn whole_etcd(&self, cluster: &Cluster) -> Result<(), String> {
        let ask = || cluster.with_etcd(|etcd, running| etcd.all_run(running));
        self.patiently("checking that etcd is healthy", ask).await
    }

    /// Starts etcd where it runs on the machine, and waits until its member has a vote.
    async fn vote(&self, cluster: &Arc<Cluster>, config: &KubeadmConfig) -> Result<(), String> {
        if start_etcd(self.machine, &self.data, cluster, config).await? {
            let instance = &self.machine.facts.instance_id;
            self.patiently("promoting a learner of etcd", || cluster.promote(instance))
                .await?;
            self.console.line("etcd: the member has a vote");
        }
        Ok(())
    }

    /// Waits until this machine's API server can write.
    pub(crate) async fn writable(&self, cluster: &Cluster) -> Result<(), String> {
        let instance = &self.machine.facts.instance_id;
        let ask = || match cluster.unusable_etcd(instance, true) {
            Some(why) => Err(why.message()),
            None => Ok(()),
        };
        self.patiently("writing to the API server", ask).await
    }

    /// Asks etcd again and again, as long as kubeadm does.
    async fn patiently(
        &self,
        what: &str,
        ask: impl Fn() -> Result<(), &'static str>,
    ) -> Result<(), String> {
        let deadline = Instant::now()
            .checked_add(self.light.tempo.promotion_timeout)
            .unwrap_or_else(Instant::now);
        let mut said = "";
        loop {
            let Err(why) = ask() else {
                return Ok(());
            };
            if said != why {
                self.console
                    .line(format!("kubeadm: {what}: {why}; trying again"));
                said = why;
            }
            if Instant::now() >= deadline {
                return Err(format!("{what}: timed out: {why}"));
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    /// Starts the API server of this machine with the CA it was given.
    pub(crate) async fn serve(
        &self,
        cluster: &Arc<Cluster>,
        config: &KubeadmConfig,
    ) -> Result<(), String> {
        self.vote(cluster, config).await?;
        serve(self.machine, &self.data, cluster, config).await?;
        self.console.line(format!(
            "kube-apiserver: serving on {}:{API_PORT}",
            self.machine.facts.address
        ));
        Ok(())
    }

    /// Starts this machine's kubelet.
    pub(crate) fn start_kubelet(
        &self,
        cluster: &Cluster,
        node: &str,
        trust: Option<KubeletTrust>,
    ) -> Result<(), String> {
        start_kubelet(self.machine, cluster, node, trust)?;
        self.console
            .line(format!("kubelet: running for node {node}"));
        Ok(())
    }

    /// What this machine's kubelet registers.
    pub(crate) fn registration<'a>(
        &'a self,
        node: &'a NodeRegistration,
        taints: Vec<serde_json::Value>,
    ) -> super::kubelets::Registration<'a> {
        let facts = &self.machine.facts;
        let provider_id = match node.argument("provider-id") {
            "" => facts.provider_id.as_str(),
            given => given,
        };
        super::kubelets::Registration {
            name: &node.name,
            provider_id,
            address: &facts.address,
            version: &self.machine.version,
            zone: &facts.zone,
            type_: &self.machine.type_,
            cpu: self.machine.cpu,
            memory_mib: self.machine.memory_mib,
            labels: node.labels(),
            taints,
        }
    }
}

fn start_kubelet(
    machine: &MachineSpec,
    cluster: &Cluster,
    node: &str,
    trust: Option<KubeletTrust>,
) -> Result<(), String> {
    let now = Instant::now();
    let ready_at = now.checked_add(cluster.tempo.node_ready).unwrap_or(now);
    let silent_at = machine
        .silent_after_ms
        .and_then(|after| ready_at.checked_add(Duration::from_millis(after)));
    let kubelet = Kubelet {
        instance: machine.facts.instance_id.clone(),
        address: machine.facts.address.clone(),
        ready_at,
        silent_at,
        trust,
    };
    cluster
        .add_kubelet(node, kubelet)
        .map_err(|error| format!("kubelet: the disk cannot be written: {error}"))
}

/// The directory of the certificates, as the cluster configuration has it.
pub(crate) fn certificates_dir(config: &KubeadmConfig) -> String {
    match object::text_at(&config.cluster, "/certificatesDir") {
        "" => "/etc/kubernetes/pki".to_owned(),
        dir => dir.trim_end_matches('/').to_owned(),
    }
}

/// The cluster CA among the machine's files.
pub(crate) fn authority(data: &UserData, dir: &str) -> Result<Authority, String> {
    let (cert_path, key_path) = (format!("{dir}/ca.crt"), format!("{dir}/ca.key"));
    let read = |path: &str| {
        data.text(path)
            .ok_or_else(|| format!("open {path}: no such file or directory"))
    };
    Authority::from_pem(&cert_path, read(&cert_path)?, &key_path, read(&key_path)?)
        .map_err(|error| error.to_string())
}

/// The authority of etcd among the machine's files, where etcd runs on it.
fn etcd_authority(data: &UserData, config: &KubeadmConfig) -> Result<Option<Authority>, String> {
    let dir = certificates_dir(config);
    let (cert_path, key_path) = (format!("{dir}/etcd/ca.crt"), format!("{dir}/etcd/ca.key"));
    let (Some(cert), Some(key)) = (data.text(&cert_path), data.text(&key_path)) else {
        return Ok(None);
    };
    if config.cluster.pointer("/etcd/external").is_some() {
        return Ok(None);
    }
    Authority::from_pem(&cert_path, cert, &key_path, key)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Runs etcd on a machine that is a member; tells whether it is one.
async fn start_etcd(
    machine: &MachineSpec,
    data: &UserData,
    cluster: &Arc<Cluster>,
    config: &KubeadmConfig,
) -> Result<bool, String> {
    let facts = &machine.facts;
    let is_member = cluster.with_etcd(|etcd, _| etcd.id_of(&facts.instance_id).is_some());
    let Some(authority) = etcd_authority(data, config)?.filter(|_| is_member) else {
        return Ok(false);
    };
    let names = [facts.hostname.clone(), "localhost".to_owned()];
    let addresses: Vec<std::net::IpAddr> = ["127.0.0.1", "::1", facts.address.as_str()]
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    let tls = authority
        .server_config(&facts.hostname, &names, &addresses, Clients::Known)
        .map_err(|error| error.to_string())?;
    let port = Port::open(&facts.address, cluster, &facts.instance_id).await;
    let port = port.map_err(|error| {
        let (address, port) = (&facts.address, port::NUMBER);
        format!("etcd: cannot listen on {address}:{port}: {error}")
    })?;
    cluster.start_etcd(&facts.instance_id, Etcd::new(port, tls));
    Ok(true)
}

async fn serve(
    machine: &MachineSpec,
    data: &UserData,
    cluster: &Arc<Cluster>,
    config: &KubeadmConfig,
) -> Result<(), String> {
    let dir = certificates_dir(config);
    let authority = Arc::new(authority(data, &dir)?);
    let signing = trust::signing_authority(data, config, &dir)?;
    let mut names: Vec<String> = [
        machine.facts.hostname.as_str(),
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    .map(str::to_owned)
    .to_vec();
    let endpoint = cluster.endpoint();
    names.push(
        endpoint
            .rsplit_once(':')
            .map_or(endpoint.as_str(), |(host, _)| host)
            .to_owned(),
    );
    for extra in object::list_at(&config.cluster, "/apiServer/certSANs") {
        names.extend(extra.as_str().map(str::to_owned));
    }
    names.extend(["127.0.0.1", "::1", machine.facts.address.as_str()].map(str::to_owned));
    let addresses = names
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect::<Vec<_>>();
    names.retain(|name| name.parse::<std::net::IpAddr>().is_err());
    let tls = authority
        .server_config("kube-apiserver", &names, &addresses, Clients::Anybody)
        .map_err(|error| error.to_string())?;
    let listener = TcpListener::bind((machine.facts.address.as_str(), API_PORT))
        .await
        .map_err(|error| {
            format!(
                "kube-apiserver: cannot listen on {}:{API_PORT}: {error}",
                machine.facts.address
            )
        })?;
    let instance = machine.facts.instance_id.clone();
    let server = ApiServer::start(listener, tls, Arc::clone(cluster), instance);
    let member = Member { authority, signing };
    cluster.serve(&machine.facts.instance_id, member, server);
    Ok(())
}

/// Brings a machine back whose user data has run to its end.
pub(crate) async fn again(
    light: &Light,
    machine: &MachineSpec,
    console: &Console,
) -> Result<(), String> {
    console.line(format!("booting {} again", machine.facts.hostname));
    let instance = machine.facts.instance_id.as_str();
    if let Some(cluster) = light.cluster_of_member(instance) {
        let mut data = UserData::parse(&machine.user_data, &machine.facts)
            .map_err(|error| error.to_string())?;
        k3s::translate(&mut data)?;
        let mut config = KubeadmConfig::default();
        for command in data.commands.iter().flat_map(|line| line.split("&&")) {
            if let Command::Init(path) | Command::Join(path) = parse_command(command.trim(), &data)
                && let Some(text) = data.text(&path)
            {
                config = KubeadmConfig::parse(&path, text)?;
            }
        }
        let was_removed =
            cluster.with_etcd(|etcd, _| !etcd.members.is_empty() && etcd.id_of(instance).is_none());
        if was_removed {
            console.line("etcd: the member has been permanently removed from the cluster");
        } else {
            start_etcd(machine, &data, &cluster, &config).await?;
            if let Err(why) = cluster.promote(instance) {
                console.line(format!("etcd: the member has no vote: {why}"));
            }
            serve(machine, &data, &cluster, &config).await?;
            console.line(format!(
                "kube-apiserver: serving on {}:{API_PORT}",
                machine.facts.address
            ));
        }
    }
    for cluster in light.all() {
        if let Some(node) = cluster.node_of(instance) {
            start_kubelet(machine, &cluster, &node, None)?;
            console.line(format!("kubelet: running for node {node}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_kubeadm_among_other_commands() {
        let parse = |line| parse_command(line, &UserData::default());
        assert_eq!(
            parse("kubeadm init --config /run/a.yaml --v 5"),
            Command::Init("/run/a.yaml".into())
        );
        assert_eq!(
            parse("sudo PATH=/x /usr/bin/kubeadm join --config=/run/b"),
            Command::Join("/run/b".into())
        );
        assert_eq!(parse("echo kubeadm init"), Command::Other);
        assert!(matches!(
            parse("kubeadm join 1.2.3.4:6443"),
            Command::Bad(_)
        ));
    }
}
