//! What clusters of real machines cost, as a table: seconds until they work, and the memory of their machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use capstan_tests::kube_client::name;
use serde_json::Value;

use crate::lab::{self, Lab, NEW};
use crate::workload;

/// Control-plane machines and workers.
const SIZES: [(u32, u32); 2] = [(1, 2), (3, 3)];

/// Makes, measures and deletes clusters of each size, with a cold page cache and with a warm one.
pub async fn print(lab: &Lab) {
    println!(
        "Seconds from the objects of a cluster until it is Available with all Nodes Ready, and until all pods of the system are Ready.\n\
         Memory: for each machine, what its control group uses less inactive pages of files, as kubelet counts it; when all pods are Ready.\n\
         Cold: the page cache was dropped before. Images were there. Load before: {}\n\n\
         | machines | page cache | Nodes Ready s | pods Ready s | memory MiB | a control plane MiB | a worker MiB | deleted in s |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
    for (control_planes, workers) in SIZES {
        for wanted in ["cold", "warm"] {
            let cache = if wanted == "warm" || drops_page_cache() {
                wanted
            } else {
                "could not be dropped"
            };
            row(lab, control_planes, workers, cache).await;
        }
    }
}

async fn row(lab: &Lab, control_planes: u32, workers: u32, cache: &str) {
    let mut cluster = lab.cluster("figures", workers, NEW);
    cluster.control_planes = control_planes;
    let begun = Instant::now();
    cluster.create(lab.host.kube()).await;
    lab.available(&cluster, workers).await;
    let nodes_s = begun.elapsed().as_secs_f64();
    let kubectl = lab.kubectl(&cluster).await;
    let nodes = usize::try_from(control_planes + workers).unwrap();
    workload::system_pods_run(&kubectl, nodes).await;
    let pods_s = begun.elapsed().as_secs_f64();
    let planes = mib(lab, &lab.machines(&cluster, true).await).await;
    let others = mib(lab, &lab.machines(&cluster, false).await).await;
    let begun = Instant::now();
    cluster.delete(&lab.host).await;
    lab.nothing_is_left().await;
    println!(
        "| {control_planes} + {workers} | {cache} | {nodes_s:.0} | {pods_s:.0} | {} | {} | {} | {:.0} |",
        planes + others,
        planes / u64::from(control_planes),
        others / u64::from(workers),
        begun.elapsed().as_secs_f64(),
    );
}

/// Whether the kernel forgot what it had read of files.
fn drops_page_cache() -> bool {
    let is_written = Command::new("sync")
        .status()
        .is_ok_and(|status| status.success());
    is_written && fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// The memory of machines.
async fn mib(lab: &Lab, machines: &[Value]) -> u64 {
    let groups = fs::read(lab::dir().join("machines/groups.json")).unwrap();
    let groups: Value = serde_json::from_slice(&groups).unwrap();
    let all = groups["groups"].as_array().unwrap();
    // One hierarchy in version 2, which has no name.
    let has_memory = |group: &&Value| {
        let hierarchy = group["hierarchy"].as_str().unwrap();
        hierarchy.is_empty() || hierarchy.split(',').any(|name| name == "memory")
    };
    let dir = all.iter().find(has_memory).unwrap()["dir"].as_str();
    let dir = PathBuf::from(dir.unwrap());
    let mut bytes = 0;
    for machine in machines {
        let instance = lab.instance(&name(machine)).await;
        bytes += working_set(&dir.join(instance["id"].as_str().unwrap()));
    }
    bytes >> 20
}

fn working_set(group: &Path) -> u64 {
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    let used = read("memory.usage_in_bytes").or_else(|| read("memory.current"));
    let used: u64 = used.unwrap().trim().parse().unwrap();
    let stat = read("memory.stat").unwrap();
    let inactive = ["total_inactive_file ", "inactive_file "];
    let inactive = inactive.iter().find_map(|key| {
        let line = stat.lines().find_map(|line| line.strip_prefix(key))?;
        line.parse::<u64>().ok()
    });
    used.saturating_sub(inactive.unwrap())
}
