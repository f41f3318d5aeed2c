//! What the members of etcd are asked: the host's client as in production, over connections of this world instead of TLS.

use std::sync::Arc;
use std::time::Duration;

use capstan_api::name::ObjectKey;
use capstan_controllers::etcd::message::{
    ALARM, AlarmMember, AlarmRequest, AlarmResponse, Empty, Header, MEMBER_LIST, MEMBER_REMOVE,
    MOVE_LEADER, Member as Listed, MemberIdRequest, MemberListRequest, MemberListResponse,
    MoveLeaderRequest, NOT_FOUND, SNAPSHOT, STATUS, StatusResponse,
};
use capstan_controllers::etcd::{Answers, Client, Clients, Connection, EtcdError, Reach};
use capstan_controllers::kube_api::KubeApi;
use capstan_controllers::tasks::Tasks;
use capstan_core::control_plane::etcd::Address;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use prost::Message;
use prost::bytes::Bytes;
use rustls::ClientConfig;
use tokio::time::sleep;

use super::{Stacked, snapshot};
use crate::fault::{Fate, REQUEST_TIMEOUT};
use crate::membership::Member;
use crate::world::{Server, State, World};

/// Codes of gRPC: the call cannot be done in this state, and who could do it is not there.
const FAILED_PRECONDITION: u32 = 9;
const UNAVAILABLE: u32 = 14;

/// A connection that may live longer than this is for a snapshot, which is no look at the members.
const LOOKS: Duration = Duration::from_secs(600);

/// How long a call hangs: longer than anybody waits.
const HANGS: Duration = Duration::from_secs(60);

/// Makes clients for the members of this world.
pub struct SimulatedEtcd(pub Arc<World>);

impl Clients for SimulatedEtcd {
    fn client(
        &self,
        cluster: &ObjectKey,
        _: &Arc<dyn KubeApi>,
        _: Arc<ClientConfig>,
        _: &Tasks,
    ) -> Client {
        Client::over(Arc::new(Members {
            world: Arc::clone(&self.0),
            server: Server::Workload(cluster.clone()),
        }))
    }
}

struct Members {
    world: Arc<World>,
    server: Server,
}

impl Reach for Members {
    fn reach<'a>(
        &'a self,
        member: &'a Address,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<Box<dyn Connection>, EtcdError>> {
        async move {
            let (takes, refused, hangs) = {
                let mut state = self.world.lock();
                if lifetime <= LOOKS {
                    state.is_asked(&member.name);
                }
                let rates = state.rates();
                let refused = state.network.happens(rates.refused);
                let hangs = state.network.happens(rates.hung) || !state.is_reached(&member.name);
                let is_away = state.unreachable_for(&self.server).is_some();
                let takes = state.network.millis(2, 40);
                (takes, refused || is_away, hangs)
            };
            sleep(takes).await;
            if refused {
                return Err(EtcdError::Connect("connection refused".to_owned()));
            }
            if hangs {
                sleep(HANGS).await;
                return Err(EtcdError::Connect("no answer".to_owned()));
            }
            Ok(Box::new(ToMember {
                world: Arc::clone(&self.world),
                machine: member.name.clone(),
            }) as Box<dyn Connection>)
        }
        .boxed()
    }
}

/// A connection to the member on a machine.
struct ToMember {
    world: Arc<World>,
    machine: String,
}

impl Connection for ToMember {
    fn call<'a>(
        &'a self,
        method: &'static str,
        request: Bytes,
        _: Duration,
    ) -> BoxFuture<'a, Result<Answers, EtcdError>> {
        async move {
            let fate = {
                let mut state = self.world.lock();
                let rates = state.rates();
                Fate::draw(&mut state.network, rates, false, REQUEST_TIMEOUT)
            };
            sleep(fate.before).await;
            if let Some(refusal) = fate.refusal {
                let why = refusal.to_string();
                return Err(EtcdError::Broken { call: method, why });
            }
            if method == SNAPSHOT {
                return Ok(snapshot::parts(&self.world, &self.machine));
            }
            let answer = {
                let mut state = self.world.lock();
                state.answer(&self.machine, method, &request)
            };
            self.world.changed();
            let answer = match answer {
                Answer::Nothing => {
                    sleep(HANGS).await;
                    None
                }
                Answer::Refused(code, message) => {
                    sleep(fate.after).await;
                    Some(Err(EtcdError::Refused {
                        call: method,
                        code,
                        message: message.to_owned(),
                    }))
                }
                Answer::Is(bytes) => {
                    sleep(fate.after).await;
                    Some(Ok(Bytes::from(bytes)))
                }
            };
            let Some(answer) = answer.filter(|_| !fate.is_lost) else {
                let why = "the connection was lost".to_owned();
                return Err(EtcdError::Broken { call: method, why });
            };
            if method == STATUS && answer.is_ok() {
                self.world.lock().has_answered(&self.machine);
            }
            Ok(stream::once(async { answer }).boxed())
        }
        .boxed()
    }
}

/// What becomes of a call.
enum Answer {
    /// Nobody answers.
    Nothing,
    /// It is refused, with a code and words.
    Refused(u32, &'static str),
    /// This is answered.
    Is(Vec<u8>),
}

fn is(message: &impl Message) -> Answer {
    Answer::Is(message.encode_to_vec())
}

fn status(stacked: &Stacked, member: &Member, has_leader: bool) -> StatusResponse {
    StatusResponse {
        header: Some(Header {
            cluster_id: 1,
            member_id: member.id,
        }),
        version: "3.6.0".to_owned(),
        db_size: 1 << 20,
        leader: stacked.etcd.leader.filter(|_| has_leader).unwrap_or(0),
        raft_index: 1,
        errors: if has_leader {
            Vec::new()
        } else {
            vec!["etcdserver: no leader".to_owned()]
        },
        db_size_in_use: 1 << 20,
        db_size_quota: 2 << 30,
    }
}

impl State {
    /// What the member on a machine answers.
    fn answer(&mut self, machine: &str, method: &str, request: &[u8]) -> Answer {
        let has_leader = self.etcd_answers();
        let Some(stacked) = &self.stacked else {
            return Answer::Nothing;
        };
        let Some(member) = stacked.etcd.of(machine).cloned() else {
            return Answer::Nothing;
        };
        if !self.works(&member) || !self.is_reached(machine) {
            return Answer::Nothing;
        }
        if method == STATUS {
            return is(&status(stacked, &member, has_leader));
        }
        if member.learner {
            return Answer::Refused(UNAVAILABLE, "etcdserver: rpc not supported for learner");
        }
        match method {
            MEMBER_LIST => self.answer_list(request, has_leader),
            _ if !has_leader => Answer::Refused(UNAVAILABLE, "etcdserver: request timed out"),
            ALARM => self.answer_alarm(request),
            MOVE_LEADER => self.answer_move(&member, request),
            MEMBER_REMOVE => self.answer_removal(request),
            _ => Answer::Refused(12, "unknown method"),
        }
    }

    fn answer_list(&mut self, request: &[u8], has_leader: bool) -> Answer {
        let request = MemberListRequest::decode(request).unwrap_or_default();
        if request.linearizable && !has_leader {
            return Answer::Refused(UNAVAILABLE, "etcdserver: request timed out");
        }
        self.is_listed();
        let members = self
            .stacked
            .iter()
            .flat_map(|stacked| &stacked.etcd.members);
        let members = members.map(|member| Listed {
            id: member.id,
            name: match member.started {
                true => member.machine.clone(),
                false => String::new(),
            },
            is_learner: member.learner,
        });
        is(&MemberListResponse {
            members: members.collect(),
        })
    }

    fn answer_alarm(&mut self, request: &[u8]) -> Answer {
        let request = AlarmRequest::decode(request).unwrap_or_default();
        if request.action == 2 {
            self.check_alarm_ends(request.member_id);
        }
        let Some(stacked) = &mut self.stacked else {
            return Answer::Nothing;
        };
        let is_it = |member: u64, number: i32| {
            member == request.member_id && number == request.alarm && request.action == 2
        };
        let alarms = &mut stacked.etcd.alarms;
        alarms.retain(|alarm| !is_it(alarm.member, alarm.number));
        let alarms = alarms.iter().map(|alarm| AlarmMember {
            member_id: alarm.member,
            alarm: alarm.number,
        });
        is(&AlarmResponse {
            alarms: alarms.collect(),
        })
    }

    fn answer_move(&mut self, asked: &Member, request: &[u8]) -> Answer {
        let to = MoveLeaderRequest::decode(request)
            .unwrap_or_default()
            .target_id;
        let Some(stacked) = &self.stacked else {
            return Answer::Nothing;
        };
        if stacked.etcd.leader != Some(asked.id) {
            return Answer::Refused(FAILED_PRECONDITION, "etcdserver: not leader");
        }
        let mut members = stacked.etcd.members.iter();
        let next = members.find(|member| member.id == to && !member.learner);
        if !next.is_some_and(|member| self.works(member)) {
            return Answer::Refused(FAILED_PRECONDITION, "etcdserver: bad leader transferee");
        }
        if let Some(stacked) = &mut self.stacked {
            stacked.etcd.leader = Some(to);
        }
        self.has_moved();
        self.note(&format!("etcd: member {to:x} leads, as it was told"));
        is(&Empty {})
    }

    fn answer_removal(&mut self, request: &[u8]) -> Answer {
        let id = MemberIdRequest::decode(request).unwrap_or_default().id;
        let Some(stacked) = &self.stacked else {
            return Answer::Nothing;
        };
        let mut members = stacked.etcd.members.iter();
        let Some(member) = members.find(|member| member.id == id).cloned() else {
            return Answer::Refused(NOT_FOUND, "etcdserver: member not found");
        };
        self.check_removal(&member);
        if let Some(stacked) = &mut self.stacked {
            stacked.etcd.members.retain(|other| other.id != id);
            stacked.removed += 1;
            if stacked.etcd.leader == Some(id) {
                stacked.etcd.leader = None;
            }
        }
        self.note(&format!(
            "etcd: member {id:x} of {} is removed",
            member.machine
        ));
        self.stir();
        is(&Empty {})
    }
}
