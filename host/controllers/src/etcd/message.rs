//! The messages of etcd's API that the host uses, as far as it uses them (facts: etcd `api/etcdserverpb/rpc.proto`, v3.5 and v3.6).

/// What every answer begins with.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    /// Of the cluster.
    #[prost(uint64, tag = "1")]
    pub(super) cluster_id: u64,
    /// Of the member that answered.
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
}

/// A member.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Member {
    /// Its ID.
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// Its name; empty until it has started.
    #[prost(string, tag = "2")]
    pub(super) name: String,
    /// It does not vote.
    #[prost(bool, tag = "5")]
    pub(super) is_learner: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MemberListRequest {
    /// Asks the leader; otherwise the member says what it knows.
    #[prost(bool, tag = "1")]
    pub(super) linearizable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MemberListResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) members: Vec<Member>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MemberRemoveRequest {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MoveLeaderRequest {
    #[prost(uint64, tag = "1")]
    pub(super) target_id: u64,
}

/// An answer of which nothing is read, and a request that says nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(int64, tag = "3")]
    pub(super) db_size: i64,
    /// 0 while there is none.
    #[prost(uint64, tag = "4")]
    pub(super) leader: u64,
    /// How far the member knows that everything was agreed on.
    #[prost(uint64, tag = "5")]
    pub(super) raft_index: u64,
    #[prost(string, repeated, tag = "8")]
    pub(super) errors: Vec<String>,
    #[prost(int64, tag = "9")]
    pub(super) db_size_in_use: i64,
    /// From v3.6.
    #[prost(int64, tag = "12")]
    pub(super) db_size_quota: i64,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotResponse {
    #[prost(bytes = "vec", tag = "3")]
    pub(super) blob: Vec<u8>,
}

/// Asks for all alarms when all fields are 0.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AlarmRequest {
    #[prost(int32, tag = "1")]
    pub(super) action: i32,
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
    #[prost(int32, tag = "3")]
    pub(super) alarm: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AlarmMember {
    #[prost(uint64, tag = "1")]
    pub(super) member_id: u64,
    #[prost(int32, tag = "2")]
    pub(super) alarm: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AlarmResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) alarms: Vec<AlarmMember>,
}

/// The name of an alarm.
pub(super) fn alarm_name(alarm: i32) -> String {
    match alarm {
        1 => "NOSPACE".to_owned(),
        2 => "CORRUPT".to_owned(),
        other => format!("alarm {other}"),
    }
}
