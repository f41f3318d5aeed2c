//! What a control plane does with the members of its etcd: looks at them, moves the leadership, keeps snapshots, removes one.

use std::sync::Arc;

use capstan_core::control_plane::etcd::{Address, Alarm, View};
use capstan_core::control_plane::snapshot::{Taken, Taking};
use capstan_core::lookup::Lookup;
use capstan_core::plan::Failure;

use super::{Seen, annotate, writer};
use crate::ctx::Ctx;
use crate::etcd::{AlarmChange, Client, EtcdError, Identities, Progress};
use crate::event::{self, Event};
use crate::object::Locator;
use crate::workloads::Workload;

/// Reason of failures of etcd.
const FAILED: &str = "EtcdRequestFailed";

/// What the members say. `Missing` when the host looks after none.
pub(super) async fn look(
    ctx: &Ctx,
    identities: &Identities,
    seen: &Seen,
    workload: &Workload,
) -> Lookup<View> {
    let members = seen.core.members.iter().filter(|m| m.node_name().is_some());
    let addresses: Vec<Address> = members.filter_map(|m| m.etcd.clone()).collect();
    if addresses.is_empty() || seen.core.is_deleting() {
        return Lookup::Missing;
    }
    let view = match client(ctx, identities, seen, workload).await {
        Ok(client) => client.view(&addresses).await,
        Err(why) => Lookup::Unknown(why),
    };
    workload.etcd_said(view.found().cloned());
    view
}

/// Makes another member the leader.
pub(super) async fn move_leader(
    ctx: &Ctx,
    identities: &Identities,
    seen: &Seen,
    from: &Address,
    to: u64,
    to_name: &str,
) -> Result<(), Failure> {
    let client = connected(ctx, identities, seen).await?;
    client.move_leader(from, to).await.map_err(|error| {
        let doing = format!(
            "making {to_name} the leader of etcd instead of {}",
            from.name
        );
        failed(&doing, &error)
    })
}

/// Removes a member.
pub(super) async fn remove(
    ctx: &Ctx,
    identities: &Identities,
    seen: &Seen,
    id: u64,
    name: &str,
    through: &[Address],
) -> Result<(), Failure> {
    let client = connected(ctx, identities, seen).await?;
    client
        .remove_member(through, id)
        .await
        .map_err(|error| failed(&format!("removing the etcd member {name} ({id:x})"), &error))
}

/// Ends an alarm.
pub(super) async fn end_alarm(
    ctx: &Ctx,
    identities: &Identities,
    seen: &Seen,
    alarm: &Alarm,
    through: &[Address],
) -> Result<(), Failure> {
    let client = connected(ctx, identities, seen).await?;
    let ended = client.set_alarm(through, alarm, AlarmChange::End).await;
    ended.map_err(|error| {
        let (name, member) = (&alarm.name, alarm.member);
        failed(
            &format!("ending the alarm {name} of the etcd member {member:x}, which is gone"),
            &error,
        )
    })
}

/// Begins to take a snapshot, which wakes the control plane when it has ended.
pub(super) async fn snapshot(
    ctx: &Ctx,
    identities: &Identities,
    seen: &Seen,
    from: &[Address],
    before: &str,
) -> Result<(), Failure> {
    let (Some(store), Some(cluster)) = (&ctx.snapshots, &seen.cluster) else {
        return Ok(());
    };
    let client = connected(ctx, identities, seen).await?;
    let (store, cluster, now) = (store.clone(), cluster.key.clone(), ctx.now());
    let take = |from: Vec<Address>, progress: Arc<Progress>| async move {
        client
            .snapshot(&from, &store, &cluster, now, &progress)
            .await
    };
    let own = Locator::of(&seen.object);
    ctx.taking.begin(ctx, &own, before, from, take);
    Ok(())
}

/// Notes on the object where a snapshot is.
pub(super) async fn note(
    ctx: &Ctx,
    seen: &Seen,
    taking: &Taking,
    taken: &Taken,
) -> Result<(), Failure> {
    annotate(ctx, seen, &taking.noted(taken)).await?;
    let own = Locator::of(&seen.object);
    ctx.taking.forget(&own);
    let mut told = format!(
        "{}, {} bytes, before {} leaves",
        taken.path, taken.bytes, taking.before
    );
    if let Some(why) = &taken.not_pruned {
        tracing::warn!(control_plane = %own, "older snapshots of etcd stay: {why}");
        told.push_str("; older ones stay: ");
        told.push_str(why);
    }
    let event = Event::normal("EtcdSnapshotTaken", "Snapshot", told);
    event::record(ctx, &writer(), &seen.object, &event).await;
    Ok(())
}

async fn connected(ctx: &Ctx, identities: &Identities, seen: &Seen) -> Result<Client, Failure> {
    let gone = |why: &str| Failure::transient(FAILED, why);
    let cluster = seen.cluster.as_ref();
    let cluster = cluster.ok_or_else(|| gone("the Cluster went away"))?;
    let workload = ctx.workloads.get(&cluster.key);
    let workload = workload.ok_or_else(|| gone("the workload cluster does not answer"))?;
    client(ctx, identities, seen, &workload)
        .await
        .map_err(|why| gone(&why))
}

/// A client for the members, as the host.
async fn client(
    ctx: &Ctx,
    identities: &Identities,
    seen: &Seen,
    workload: &Workload,
) -> Result<Client, String> {
    let cluster = seen.cluster.as_ref().ok_or("the Cluster went away")?;
    let authority = seen.authority.as_deref();
    let authority = authority.ok_or("the plugin names no certificate authority of etcd")?;
    let own = Locator::of(&seen.object);
    let tls = identities.of(ctx, &own, &cluster.key, authority).await?;
    let clients = &ctx.etcd;
    Ok(clients.client(&cluster.key, &workload.api, tls, &ctx.tasks))
}

fn failed(doing: &str, error: &EtcdError) -> Failure {
    Failure::transient(FAILED, format!("{doing}: {error}"))
}
