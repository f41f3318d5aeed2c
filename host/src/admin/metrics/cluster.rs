//! Metrics of workload clusters: when their certificates, and the host's own, end, and how large their etcd is.

use std::fmt;

use capstan_api::label;
use capstan_controllers::certificates::End;
use capstan_controllers::ctx::Ctx;
use capstan_core::control_plane::etcd::{Answer, View};
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::Value;

/// When certificates end: of clusters, as their control planes list them or as they were seen, and of the endpoint for failed bootstraps.
#[derive(Debug, Default)]
pub(super) struct Certificates(Vec<Certificate>);

#[derive(Debug)]
struct Certificate {
    namespace: String,
    cluster: String,
    control_plane: String,
    name: String,
    end_s: i64,
}

impl Certificates {
    /// Of all control planes, of Clusters without one, and of the host.
    pub(super) fn read(ctx: &Ctx) -> Self {
        let mut all = Self::default();
        for resource in ctx.plugins.kinds_with(&["control-plane"]) {
            let Some(store) = ctx.stores.get(&resource.group_kind()) else {
                continue;
            };
            for object in store.all() {
                all.add(&object.key.namespace, &object.key.name, &object.value);
            }
        }
        for (cluster, ends) in ctx.certificates.all() {
            all.add_ends(&cluster.namespace, &cluster.name, ends);
        }
        if let Some(reports) = &ctx.reports {
            all.add_ends(&ctx.namespace, "", reports.ends());
        }
        all
    }

    fn add(&mut self, namespace: &str, control_plane: &str, object: &Value) {
        let listed = object
            .pointer("/status/certificates")
            .and_then(Value::as_array);
        let labels = object.pointer("/metadata/labels");
        let cluster = labels.and_then(|all| all.get(label::CLUSTER_NAME)?.as_str());
        for entry in listed.into_iter().flatten() {
            let text = |field: &str| entry.get(field).and_then(Value::as_str);
            let end = text("expirationDate").and_then(|end| end.parse::<Timestamp>().ok());
            let (Some(name), Some(end)) = (text("name"), end) else {
                continue;
            };
            self.0.push(Certificate {
                namespace: namespace.to_owned(),
                cluster: cluster.unwrap_or_default().to_owned(),
                control_plane: control_plane.to_owned(),
                name: name.to_owned(),
                end_s: end.as_second(),
            });
        }
    }

    /// Of a Cluster without a control plane object, or of the host itself.
    fn add_ends(&mut self, namespace: &str, cluster: &str, ends: Vec<End>) {
        self.0
            .extend(ends.into_iter().map(|(name, end)| Certificate {
                namespace: namespace.to_owned(),
                cluster: cluster.to_owned(),
                control_plane: String::new(),
                name,
                end_s: end.as_second(),
            }));
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "When a certificate ends, in seconds since the Unix epoch";
        let name = "capstan_certificate_expiration_timestamp_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for certificate in &self.0 {
            let labels = [
                ("namespace", certificate.namespace.as_str()),
                ("cluster", certificate.cluster.as_str()),
                ("control_plane", certificate.control_plane.as_str()),
                ("certificate", certificate.name.as_str()),
            ];
            ConstGauge::new(certificate.end_s).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// What members of etcd said when their control plane was last looked at.
#[derive(Debug, Default)]
pub(super) struct Etcd(Vec<EtcdMember>);

#[derive(Debug)]
struct EtcdMember {
    namespace: String,
    cluster: String,
    name: String,
    answer: Option<Answer>,
    alarms: Vec<String>,
}

/// Reads one size of a member; 0 when it does not say.
type Size = fn(&Answer) -> u64;

/// Sizes of a member: name, help, value.
const SIZES: [(&str, &str, Size); 3] = [
    (
        "capstan_etcd_member_database_bytes",
        "Size of the database file of a member of a cluster's etcd",
        |answer| answer.db_bytes,
    ),
    (
        "capstan_etcd_member_database_in_use_bytes",
        "How much of the file holds anything; the rest comes back by defragmentation",
        |answer| answer.db_in_use_bytes,
    ),
    (
        "capstan_etcd_member_database_quota_bytes",
        "The size at which etcd takes no more writes; members before v3.6 do not say",
        |answer| answer.db_quota_bytes,
    ),
];

impl Etcd {
    /// Of all connected clusters.
    pub(super) fn read(ctx: &Ctx) -> Self {
        let mut all = Self::default();
        for (cluster, workload) in ctx.workloads.all() {
            if let Some(view) = workload.etcd() {
                all.add(&cluster.namespace, &cluster.name, view);
            }
        }
        all
    }

    fn add(&mut self, namespace: &str, cluster: &str, view: View) {
        let members = view.members.into_iter().map(|member| EtcdMember {
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            name: member.name,
            answer: member.answer.found().cloned(),
            alarms: member.alarms,
        });
        self.0.extend(members);
    }
}

impl EtcdMember {
    fn labels(&self) -> [(&'static str, &str); 3] {
        [
            ("namespace", self.namespace.as_str()),
            ("cluster", self.cluster.as_str()),
            ("member", self.name.as_str()),
        ]
    }
}

impl Collector for Etcd {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, size) in SIZES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for member in &self.0 {
                let bytes = member.answer.as_ref().map_or(0, size);
                if bytes > 0 {
                    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                    ConstGauge::new(bytes).encode(family.encode_family(&member.labels())?)?;
                }
            }
        }
        let help = "1 while a member of a cluster's etcd has this alarm";
        let name = "capstan_etcd_member_alarm";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for member in &self.0 {
            for alarm in &member.alarms {
                let [namespace, cluster, name] = member.labels();
                let labels = [namespace, cluster, name, ("alarm", alarm.as_str())];
                ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use capstan_core::control_plane::etcd::EtcdMember as Listed;
    use capstan_core::lookup::Lookup;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_end_of_each_certificate_is_a_line() {
        let mut all = Certificates::default();
        let object = serde_json::json!({"metadata": {"labels": {"cluster.x-k8s.io/cluster-name": "c"}}, "status": {"certificates": [
            {"name": "ca", "expirationDate": "2036-01-01T00:00:00Z"}, {"name": "bad", "expirationDate": "soon"},
        ]}});
        all.add("n", "cp", &object);
        let end = "2036-01-01T00:00:00Z".parse().unwrap();
        all.add_ends("n", "alone", vec![("kubeconfig".to_owned(), end)]);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(all));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for labels in [
            "namespace=\"n\",cluster=\"c\",control_plane=\"cp\",certificate=\"ca\"",
            "namespace=\"n\",cluster=\"alone\",control_plane=\"\",certificate=\"kubeconfig\"",
        ] {
            let line = format!(
                "capstan_certificate_expiration_timestamp_seconds{{{labels}}} 2082758400\n"
            );
            assert!(text.contains(&line), "{line}: {text}");
        }
        assert!(!text.contains("bad"), "{text}");
    }

    fn listed(name: &str, answer: Lookup<Answer>, alarms: &[&str]) -> Listed {
        Listed {
            id: 1,
            name: name.to_owned(),
            is_learner: false,
            is_leader: false,
            alarms: alarms.iter().map(|&alarm| alarm.to_owned()).collect(),
            answer,
        }
    }

    #[test]
    fn sizes_and_alarms_of_each_member_of_etcd_are_lines() {
        let answer = Answer {
            db_bytes: 7,
            db_in_use_bytes: 5,
            ..Answer::default()
        };
        let view = View {
            members: vec![
                listed("a", Lookup::Found(answer), &["NOSPACE"]),
                listed("b", Lookup::Unknown("silent".to_owned()), &[]),
            ],
            has_quorum: true,
            stale_alarms: Vec::new(),
        };
        let mut all = Etcd::default();
        all.add("n", "c", view);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(all));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let labels = "namespace=\"n\",cluster=\"c\",member=\"a\"";
        for line in [
            format!("capstan_etcd_member_database_bytes{{{labels}}} 7\n"),
            format!("capstan_etcd_member_database_in_use_bytes{{{labels}}} 5\n"),
            format!("capstan_etcd_member_alarm{{{labels},alarm=\"NOSPACE\"}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
        // Who is silent, or says no quota, has no line.
        assert!(!text.contains("member=\"b\""), "{text}");
        assert!(!text.contains("quota_bytes{"), "{text}");
    }
}
