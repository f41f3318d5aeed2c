//! The etcd of workload clusters: members, status, alarms, leader moves, learners and removals, through any member that answers.
//!
//! A member is reached through the workload API server's port-forward to its pod. What can be asked of any member is asked of
//! one after the other until one answers, so that a machine whose kubelet or API server is dead is in nobody's way.

mod channel;
pub mod identity;
pub mod message;
pub mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_core::control_plane::etcd::{Address, Alarm, Answer, EtcdMember, View};
use capstan_core::lookup::Lookup;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt as _, TryStreamExt as _};
use jiff::Timestamp;
use prost::Message as _;
use rustls::ClientConfig;

pub use self::channel::{Answers, Connection};
use self::channel::{CONNECT_TIMEOUT, Channel, LIFETIME_MAX, ask, within};
pub use self::identity::Identities;
use self::message::{
    ALARM, AlarmRequest, AlarmResponse, Empty, MEMBER_ADD, MEMBER_LIST, MEMBER_PROMOTE,
    MEMBER_REMOVE, MOVE_LEADER, MemberAddRequest, MemberAddResponse, MemberIdRequest,
    MemberListRequest, MemberListResponse, MoveLeaderRequest, NOT_FOUND, SNAPSHOT, STATUS,
    SnapshotResponse, StatusResponse, alarm_name,
};
pub use self::snapshot::{Bucket as SnapshotBucket, Progress, Snapshot, SnapshotStore, Snapshots};
use crate::kube_api::{Duplex, KubeApi};
use crate::tasks::Tasks;

/// How long one member may take for a snapshot: 8 GiB, the largest database that etcd recommends, at 2.4 MiB/s.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long nothing may come of a snapshot before another member is asked: a part is 32 KiB, and a member that is busy has one within a
/// second or two.
const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);

/// What went wrong with a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// There is no connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// No answer in time.
    #[error("{call}: no answer within {} s", .after.as_secs())]
    Deadline {
        /// Service and method.
        call: &'static str,
        /// How long it was waited.
        after: Duration,
    },
    /// The connection broke, or what came is not an answer: the call may have had its effect.
    #[error("{call}: {why}")]
    Broken {
        /// Service and method.
        call: &'static str,
        /// The library's words.
        why: String,
    },
    /// etcd refused.
    #[error("{call}: {message} (code {code})")]
    Refused {
        /// Service and method.
        call: &'static str,
        /// Of gRPC.
        code: u32,
        /// etcd's words.
        message: String,
    },
    /// A snapshot cannot be kept.
    #[error("the snapshot cannot be kept: {0}")]
    Store(String),
    /// There is nobody to ask.
    #[error("no etcd member is known to ask")]
    Nobody,
}

/// What is done with an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmChange {
    /// It begins: a drill.
    Raise,
    /// It ends.
    End,
}

/// Opens a stream of bytes to a member.
pub trait Dial: Send + Sync {
    /// Opens it. The text says what failed.
    fn dial<'a>(&'a self, member: &'a Address) -> BoxFuture<'a, Result<Box<dyn Duplex>, String>>;
}

/// Through the port-forward of a workload API server.
pub struct PortForward(pub Arc<dyn KubeApi>);

impl Dial for PortForward {
    fn dial<'a>(&'a self, member: &'a Address) -> BoxFuture<'a, Result<Box<dyn Duplex>, String>> {
        async move {
            let stream = self.0.port_forward(&member.pod, member.port).await;
            stream.map_err(|error| format!("port-forward to Pod {}: {error}", member.pod))
        }
        .boxed()
    }
}

/// Connects to the members of one cluster. Simulations bring their own.
pub trait Reach: Send + Sync {
    /// Connects to a member; the connection is cut after this time.
    fn reach<'a>(
        &'a self,
        member: &'a Address,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<Box<dyn Connection>, EtcdError>>;
}

/// TLS and HTTP/2 over whatever stream there is.
struct OverTls {
    dial: Arc<dyn Dial>,
    tls: Arc<ClientConfig>,
    tasks: Tasks,
}

impl Reach for OverTls {
    fn reach<'a>(
        &'a self,
        member: &'a Address,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<Box<dyn Connection>, EtcdError>> {
        async move {
            let stream = self.dial.dial(member).await.map_err(EtcdError::Connect)?;
            let channel =
                Channel::open(stream, Arc::clone(&self.tls), &self.tasks, lifetime).await?;
            Ok(Box::new(channel) as Box<dyn Connection>)
        }
        .boxed()
    }
}

/// Makes clients for the etcd of workload clusters.
pub trait Clients: Send + Sync + 'static {
    /// A client for the members of the cluster with this API server, who shows itself by this certificate.
    fn client(
        &self,
        cluster: &ObjectKey,
        api: &Arc<dyn KubeApi>,
        tls: Arc<ClientConfig>,
        tasks: &Tasks,
    ) -> Client;
}

/// Clients that reach members through port-forwards to their pods.
pub struct ThroughPods;

impl Clients for ThroughPods {
    fn client(
        &self,
        _: &ObjectKey,
        api: &Arc<dyn KubeApi>,
        tls: Arc<ClientConfig>,
        tasks: &Tasks,
    ) -> Client {
        let dial = Arc::new(PortForward(Arc::clone(api)));
        Client::new(dial, tls, tasks.clone())
    }
}

/// Speaks to the members of one cluster.
pub struct Client {
    reach: Arc<dyn Reach>,
}

/// One member that answered.
struct Reached {
    id: u64,
    connection: Box<dyn Connection>,
    leader: u64,
}

impl Client {
    /// Speaks as this client, over these streams.
    pub fn new(dial: Arc<dyn Dial>, tls: Arc<ClientConfig>, tasks: Tasks) -> Self {
        Self::over(Arc::new(OverTls { dial, tls, tasks }))
    }

    /// Speaks over these connections.
    pub fn over(reach: Arc<dyn Reach>) -> Self {
        Self { reach }
    }

    /// What the members say of each other: the list and the alarms from the first that answers, the status from each itself.
    /// `Unknown` when nobody answers.
    pub async fn view(&self, members: &[Address]) -> Lookup<View> {
        let asked = join_all(members.iter().map(|member| self.status(member))).await;
        let mut reached = Vec::new();
        let mut answers = Vec::new();
        let mut why = Vec::new();
        for (member, answer) in members.iter().zip(asked) {
            match answer {
                Ok((connection, answer)) => {
                    answers.push((connection.id, Lookup::Found(answer)));
                    reached.push(connection);
                }
                Err(error) => why.push(format!("{}: {error}", member.name)),
            }
        }
        if reached.is_empty() {
            return Lookup::Unknown(if why.is_empty() {
                EtcdError::Nobody.to_string()
            } else {
                why.join("; ")
            });
        }
        let listed = match list(&reached).await {
            Ok(listed) => listed,
            Err(error) => return Lookup::Unknown(error.to_string()),
        };
        // Without a majority, who led is still said for a moment.
        let leader = reached
            .iter()
            .map(|r| r.leader)
            .find(|id| *id != 0 && listed.has_quorum);
        let is_known = |id: u64| listed.members.iter().any(|member| member.id == id);
        let stale_alarms = listed.alarms.iter().filter(|alarm| !is_known(alarm.member));
        let stale_alarms = stale_alarms.cloned().collect();
        let members = listed.members.into_iter().map(|member| EtcdMember {
            answer: answers.iter().find(|(id, _)| *id == member.id).map_or_else(
                || {
                    let prefix = format!("{}: ", member.name);
                    let why = why.iter().find_map(|why| why.strip_prefix(&prefix));
                    Lookup::Unknown(why.unwrap_or("it was not asked").to_owned())
                },
                |(_, answer)| answer.clone(),
            ),
            alarms: listed
                .alarms
                .iter()
                .filter(|alarm| alarm.member == member.id)
                .map(|alarm| alarm.name.clone())
                .collect(),
            is_leader: leader == Some(member.id),
            id: member.id,
            name: member.name,
            is_learner: member.is_learner,
        });
        Lookup::Found(View {
            members: members.collect(),
            has_quorum: listed.has_quorum,
            stale_alarms,
        })
    }

    /// Lets an alarm begin or end, through the first member that does it.
    ///
    /// # Errors
    /// What the last one said, when none did it.
    pub async fn set_alarm(
        &self,
        through: &[Address],
        alarm: &Alarm,
        change: AlarmChange,
    ) -> Result<(), EtcdError> {
        let request = AlarmRequest {
            action: match change {
                AlarmChange::Raise => 1,
                AlarmChange::End => 2,
            },
            member_id: alarm.member,
            alarm: alarm.number,
        };
        let done = self.first_of(through, ALARM, &request).await;
        done.map(|Empty {}| ())
    }

    /// Asks one after the other until one answers, or says that there is no such thing.
    async fn first_of<Q, A>(
        &self,
        through: &[Address],
        call: &'static str,
        request: &Q,
    ) -> Result<A, EtcdError>
    where
        Q: prost::Message,
        A: prost::Message + Default,
    {
        let mut last = EtcdError::Nobody;
        for member in through {
            let done = match self.connect(member).await {
                Ok(connection) => ask(&*connection, call, request).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(answer) => return Ok(answer),
                Err(
                    error @ EtcdError::Refused {
                        code: NOT_FOUND, ..
                    },
                ) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Adds a member without a vote that the others are to find at this URL, as a distribution's own tool does on its machine. Answers
    /// its ID.
    ///
    /// # Errors
    /// What the last one said, when none did it.
    pub async fn add_learner(&self, through: &[Address], peer_url: &str) -> Result<u64, EtcdError> {
        let request = MemberAddRequest {
            peer_urls: vec![peer_url.to_owned()],
            is_learner: true,
        };
        let added: MemberAddResponse = self.first_of(through, MEMBER_ADD, &request).await?;
        Ok(added.member.unwrap_or_default().id)
    }

    /// Gives a member its vote, as a distribution's own tool does on its machine.
    ///
    /// # Errors
    /// What the last one said, when none did it.
    pub async fn promote(&self, through: &[Address], id: u64) -> Result<(), EtcdError> {
        let request = MemberIdRequest { id };
        let done = self.first_of(through, MEMBER_PROMOTE, &request).await;
        done.map(|Empty {}| ())
    }

    /// Makes another member the leader. Only the leader takes this call.
    ///
    /// # Errors
    /// What failed on the way or was refused.
    pub async fn move_leader(&self, leader: &Address, to: u64) -> Result<(), EtcdError> {
        let connection = self.connect(leader).await?;
        let request = MoveLeaderRequest { target_id: to };
        ask::<_, Empty>(&*connection, MOVE_LEADER, &request)
            .await
            .map(drop)
    }

    /// Removes a member, through the first of the others that does it. Gone already is success.
    ///
    /// # Errors
    /// What the last one said, when none did it.
    pub async fn remove_member(&self, through: &[Address], id: u64) -> Result<(), EtcdError> {
        let request = MemberIdRequest { id };
        match self.first_of(through, MEMBER_REMOVE, &request).await {
            Ok(Empty {})
            | Err(EtcdError::Refused {
                code: NOT_FOUND, ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes a snapshot from the first member that gives one, for as long as something comes. Dropped, nothing stays of it.
    ///
    /// # Errors
    /// What the last one said, or that the place cannot be written.
    pub async fn snapshot(
        &self,
        from: &[Address],
        store: &SnapshotStore,
        cluster: &ObjectKey,
        now: Timestamp,
        progress: &Progress,
    ) -> Result<Snapshot, EtcdError> {
        let mut last = EtcdError::Nobody;
        for member in from {
            progress.begins(&member.name);
            let taken = self.snapshot_of(member, store, cluster, now, progress);
            match within(SNAPSHOT, SNAPSHOT_TIMEOUT, taken).await {
                Ok(snapshot) => return Ok(snapshot),
                // Another member would not help.
                Err(error @ EtcdError::Store(_)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn snapshot_of(
        &self,
        member: &Address,
        store: &SnapshotStore,
        cluster: &ObjectKey,
        now: Timestamp,
        progress: &Progress,
    ) -> Result<Snapshot, EtcdError> {
        let connection = self.connect_for(member, SNAPSHOT_TIMEOUT).await?;
        let request = Empty {}.encode_to_vec().into();
        let parts = connection.call(SNAPSHOT, request, SNAPSHOT_TIMEOUT);
        let mut parts = within(SNAPSHOT, SNAPSHOT_SILENCE, parts).await?;
        let mut writing = store.begin(cluster, now).await?;
        while let Some(part) = within(SNAPSHOT, SNAPSHOT_SILENCE, parts.try_next()).await? {
            let part = SnapshotResponse::decode(part).map_err(|error| EtcdError::Broken {
                call: SNAPSHOT,
                why: error.to_string(),
            })?;
            writing.add(&part.blob).await?;
            progress.came(part.blob.len());
        }
        writing.finish().await
    }

    async fn connect(&self, member: &Address) -> Result<Box<dyn Connection>, EtcdError> {
        self.connect_for(member, LIFETIME_MAX).await
    }

    async fn connect_for(
        &self,
        member: &Address,
        lifetime: Duration,
    ) -> Result<Box<dyn Connection>, EtcdError> {
        let connect = self.reach.reach(member, lifetime);
        within("connecting", CONNECT_TIMEOUT, connect).await
    }

    async fn status(&self, member: &Address) -> Result<(Reached, Answer), EtcdError> {
        let connection = self.connect(member).await?;
        let status: StatusResponse = ask(&*connection, STATUS, &Empty {}).await?;
        let id = status.header.unwrap_or_default().member_id;
        let answer = Answer {
            version: status.version,
            db_bytes: u64::try_from(status.db_size).unwrap_or_default(),
            db_in_use_bytes: u64::try_from(status.db_size_in_use).unwrap_or_default(),
            db_quota_bytes: u64::try_from(status.db_size_quota).unwrap_or_default(),
            raft_index: status.raft_index,
            errors: status
                .errors
                .into_iter()
                .filter(|error| !is_alarm(error))
                .collect(),
        };
        let reached = Reached {
            id,
            connection,
            leader: status.leader,
        };
        Ok((reached, answer))
    }
}

/// Whether an error that a member reports is an alarm, which all members report of each other. Alarms are asked for by themselves.
fn is_alarm(error: &str) -> bool {
    error.starts_with("memberID:") && error.contains(" alarm:")
}

struct Listed {
    members: Vec<message::Member>,
    alarms: Vec<Alarm>,
    has_quorum: bool,
}

/// The members as a majority knows them; else as the first one that answers knows them.
async fn list(reached: &[Reached]) -> Result<Listed, EtcdError> {
    let mut last = EtcdError::Nobody;
    // Without a leader a question to the majority only costs its time.
    for member in reached.iter().filter(|member| member.leader != 0) {
        match list_of(&*member.connection, true).await {
            Ok(listed) => return Ok(listed),
            Err(error) => last = error,
        }
    }
    for member in reached {
        match list_of(&*member.connection, false).await {
            Ok(listed) => return Ok(listed),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn list_of(connection: &dyn Connection, linearizable: bool) -> Result<Listed, EtcdError> {
    let request = MemberListRequest { linearizable };
    let list: MemberListResponse = ask(connection, MEMBER_LIST, &request).await?;
    // Alarms are read through the majority.
    let alarms = if linearizable {
        let alarms: AlarmResponse = ask(connection, ALARM, &AlarmRequest::default()).await?;
        alarms.alarms
    } else {
        Vec::new()
    };
    Ok(Listed {
        members: list.members,
        alarms: alarms
            .into_iter()
            .map(|alarm| Alarm {
                member: alarm.member_id,
                number: alarm.alarm,
                name: alarm_name(alarm.alarm),
            })
            .collect(),
        has_quorum: linearizable,
    })
}

#[cfg(test)]
mod tests;
