//! The calls and messages of etcd's API that the host uses, as far as it uses them (facts: etcd `api/etcdserverpb/rpc.proto`, v3.5 and
//! v3.6).

/// What a member says of itself.
pub const STATUS: &str = "Maintenance/Status";
/// Asks for all alarms, lets one begin, or ends one.
pub const ALARM: &str = "Maintenance/Alarm";
/// Has the leader hand over.
pub const MOVE_LEADER: &str = "Maintenance/MoveLeader";
/// The whole database, in parts.
pub const SNAPSHOT: &str = "Maintenance/Snapshot";
/// All members.
pub const MEMBER_LIST: &str = "Cluster/MemberList";
/// Adds a member.
pub const MEMBER_ADD: &str = "Cluster/MemberAdd";
/// Gives a member its vote.
pub const MEMBER_PROMOTE: &str = "Cluster/MemberPromote";
/// Takes a member out.
pub const MEMBER_REMOVE: &str = "Cluster/MemberRemove";

/// The code of gRPC for what does not exist.
pub const NOT_FOUND: u32 = 5;

/// What every answer begins with.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// Of the cluster.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// Of the member that answered.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
}

/// A member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Member {
    /// Its ID.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name; empty until it has started.
    #[prost(string, tag = "2")]
    pub name: String,
    /// It does not vote.
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
}

/// Asks for all members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberListRequest {
    /// Asks the leader; otherwise the member says what it knows.
    #[prost(bool, tag = "1")]
    pub linearizable: bool,
}

/// Names all members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberListResponse {
    /// Members.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// Adds a member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberAddRequest {
    /// Where the others find it.
    #[prost(string, repeated, tag = "1")]
    pub peer_urls: Vec<String>,
    /// Without a vote.
    #[prost(bool, tag = "2")]
    pub is_learner: bool,
}

/// Names the member that was added.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberAddResponse {
    /// The member.
    #[prost(message, optional, tag = "2")]
    pub member: Option<Member>,
}

/// Takes a member out, or gives it its vote.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MemberIdRequest {
    /// Of the member.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Makes another member the leader.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MoveLeaderRequest {
    /// The next leader.
    #[prost(uint64, tag = "1")]
    pub target_id: u64,
}

/// An answer of which nothing is read, and a request that says nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// What a member says of itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusResponse {
    /// What every answer begins with.
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    /// Version of etcd.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Bytes of its database.
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    /// 0 while there is none.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    /// How far the member knows that everything was agreed on.
    #[prost(uint64, tag = "5")]
    pub raft_index: u64,
    /// What it complains about.
    #[prost(string, repeated, tag = "8")]
    pub errors: Vec<String>,
    /// Bytes that hold anything.
    #[prost(int64, tag = "9")]
    pub db_size_in_use: i64,
    /// From v3.6.
    #[prost(int64, tag = "12")]
    pub db_size_quota: i64,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotResponse {
    /// Its bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub blob: Vec<u8>,
}

/// Asks for all alarms when all fields are 0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlarmRequest {
    /// 0 asks, 1 raises, 2 ends.
    #[prost(int32, tag = "1")]
    pub action: i32,
    /// Of which member.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// Its number.
    #[prost(int32, tag = "3")]
    pub alarm: i32,
}

/// An alarm of one member.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlarmMember {
    /// Of which member.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// Its number.
    #[prost(int32, tag = "2")]
    pub alarm: i32,
}

/// Names all alarms.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlarmResponse {
    /// Alarms.
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<AlarmMember>,
}

/// The name of an alarm.
pub fn alarm_name(alarm: i32) -> String {
    match alarm {
        1 => "NOSPACE".to_owned(),
        2 => "CORRUPT".to_owned(),
        other => format!("alarm {other}"),
    }
}
