//! Documents word for word, in a directory outside of the repository. The SDK's README leads from nothing to a provider that runs: only the
//! quickstart itself is not started, and what it leaves behind is here already. The operators' page of plugins leads to a canary and back.

use std::os::unix::fs::symlink;
use std::path::Path;

use capstan_local::control_plane::ControlPlane;
use capstan_local::progress::Progress;
use capstan_local::toolchain;
use capstan_tests::cluster::namespace;
use capstan_tests::host::TestHost;
use capstan_tests::page::{commands, document, follow, section};
use capstan_tests::probe::{PROBE, probe_cluster};
use capstan_tests::registry::Registry;
use capstan_tests::{run, wasm};

/// The line that a person begins with.
const QUICKSTART: &str = "./dev quickstart --backend light\n";

/// In front of the commands: versions of this repository instead of a network, what was built is kept, and what a person reads is shown.
const PREAMBLE: &str = r#"set -eux
cargo() {
    test -e Cargo.lock || cp "$REPOSITORY/Cargo.lock" .
    test -e target || ln -s "$BUILT" target
    command cargo "$@"
}
cd "$CHECKOUT"
"#;

fn link(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    symlink(from, to).unwrap();
}

#[test]
fn the_readme_of_the_sdk_leads_from_nothing_to_a_provider_that_runs() {
    run(async {
        let host = TestHost::start().await;
        let own = tempfile::tempdir().unwrap();
        let (checkout, mine) = (own.path().join("checkout"), own.path().join("mine"));
        std::fs::create_dir(&mine).unwrap();
        // What a checkout has after the quickstart.
        let admin = host
            .plane
            .user_kubeconfig("admin", &["system:masters"])
            .unwrap();
        let kubectl = toolchain::ensure_kubectl(&Progress::new(|_| {}))
            .await
            .unwrap();
        link(&wasm::root().join("examples"), &checkout.join("examples"));
        link(&wasm::program(), &checkout.join("target/release/capstan"));
        link(&kubectl, &checkout.join("target/release/kubectl"));
        link(&admin, &checkout.join(".dev/kubeconfig"));
        link(
            &host.plane.dir().join("cloud"),
            &checkout.join(".dev/cloud"),
        );

        let readme = document("sdk-guest/README.md");
        let mut blocks = commands(&section(&readme, "From nothing"));
        assert!(blocks.len() >= 5, "{blocks:?}");
        assert!(blocks[0].starts_with(QUICKSTART), "{}", blocks[0]);
        blocks[0] = blocks[0].replacen(QUICKSTART, "", 1);
        blocks.insert(1, "cd \"$MINE\"\n".to_owned());
        let built = wasm::target_dir().join("plugin-new");
        std::fs::create_dir_all(&built).unwrap();
        let built = built.canonicalize().unwrap();
        let script = format!("{PREAMBLE}{}", blocks.concat());
        let repository = wasm::root();
        let variables = [
            ("REPOSITORY", repository.as_path()),
            ("CHECKOUT", &checkout),
            ("MINE", &mine),
            ("BUILT", &built),
        ];
        let said = follow(&script, &variables).await;
        // The last command lists what the provider has made.
        assert!(said.contains("machine.cluster.x-k8s.io/harbour-"), "{said}");
        assert!(
            said.contains("harbourmachine.infrastructure.cluster.x-k8s.io/harbour-"),
            "{said}"
        );
    });
}

/// Asks the plugin about its object again and again until a call was recorded.
const CALLED: &str = r#"for turn in $(seq 240); do
    ls "$RECORDS"/*.json && break
    kubectl -n "$STAGING" patch probecluster probe --type merge -p "{\"spec\": {\"size\": \"$turn\"}}"
    sleep 0.5
done
"#;

#[test]
fn the_page_of_plugins_leads_to_a_canary_back_and_to_the_replay_of_its_failure() {
    run(async {
        let mut host = TestHost::without_host().await;
        let own = tempfile::tempdir().unwrap();
        let records = host.plane.dir().join("records");
        let more = ["--record-dir", records.to_str().unwrap()];
        host.runs_with("paged", &more);
        host.plugins_ready().await;
        let registry = Registry::start_plain().await;
        let file = |name: &str, bytes: Vec<u8>| {
            let path = own.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let good = file("good.wasm", wasm::component("engine-probe"));
        let next = file("next.wasm", wasm::probe_that("fails"));
        let admin = host
            .plane
            .user_kubeconfig("admin", &["system:masters"])
            .unwrap();
        let kubectl = toolchain::ensure_kubectl(&Progress::new(|_| {}))
            .await
            .unwrap();
        link(&wasm::program(), &own.path().join("bin/capstan"));
        link(&kubectl, &own.path().join("bin/kubectl"));

        let mut blocks = commands(&document("host/docs/plugins.md"));
        assert!(blocks.len() >= 10, "{blocks:?}");
        let team = registry.reference("team");
        blocks[0] = format!(
            "set -eux\ncd \"$OWN\"\nexport PATH=\"$OWN/bin:$PATH\" PLUGIN={PROBE} REGISTRY={team} ACCESS=--plain-http STAGING=staging\n"
        );
        let canary = blocks
            .iter()
            .position(|block| block.contains("canary:"))
            .unwrap();
        // Its object is there before the version that fails: the page begins where clusters are.
        let (before, after) = blocks.split_at(canary);
        let variables = [
            ("OWN", own.path()),
            ("KUBECONFIG", &admin),
            ("WASM", &good),
            ("NEXT", &next),
            ("RECORDS", &records),
        ];
        follow(&before.concat(), &variables).await;
        namespace(host.kube(), "staging").await;
        probe_cluster(host.kube(), "staging").await;
        let mut rest = vec![blocks[0].clone()];
        for block in after {
            if block.starts_with("capstan plugin records") {
                rest.push(CALLED.to_owned());
            }
            rest.push(block.clone());
        }
        let said = follow(&rest.concat(), &variables).await;
        assert!(said.contains("Ready=True"), "{said}");
        assert!(
            said.contains("ensure-cluster of ProbeCluster staging/probe: failed"),
            "{said}"
        );
        let kept = std::fs::read_to_string(own.path().join("failure.json")).unwrap();
        assert!(kept.contains("this version fails"), "{kept}");
    });
}

#[test]
fn what_the_readme_installs_is_taken_by_a_server() {
    run(async {
        let plane = ControlPlane::start_for_tests().await.unwrap();
        let own = tempfile::tempdir().unwrap();
        let admin = plane.user_kubeconfig("admin", &["system:masters"]).unwrap();
        let kubectl = toolchain::ensure_kubectl(&Progress::new(|_| {}))
            .await
            .unwrap();
        link(&wasm::program(), &own.path().join("bin/capstan"));
        link(&kubectl, &own.path().join("bin/kubectl"));
        let blocks = commands(&document("README.md"));
        let mut blocks = blocks.iter();
        let block = blocks
            .find(|block| block.contains("capstan manifests"))
            .unwrap();
        // What is built is there already, and no image is made here.
        let lines = block.lines().filter(|line| !line.starts_with("./dev "));
        let script = format!(
            "set -eux\nexport PATH=\"$OWN/bin:$PATH\"\n{}\n",
            lines.collect::<Vec<_>>().join("\n")
        );
        let said = follow(&script, &[("OWN", own.path()), ("KUBECONFIG", &admin)]).await;
        for applied in [
            "namespace/capstan-system",
            "deployment.apps/capstan",
            "poddisruptionbudget.policy/capstan",
            "networkpolicy.networking.k8s.io/capstan",
            "customresourcedefinition.apiextensions.k8s.io/plugins.capstan.dev",
        ] {
            assert!(
                said.contains(&format!("{applied} serverside-applied")),
                "{applied}: {said}"
            );
        }
    });
}
