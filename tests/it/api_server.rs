//! The real API server behaves as the simulated one: the other half of the suite in `tests/sim`.

use capstan_controllers::kube_api::real::RealApi;
use capstan_simulation::behaviour::{self, Place};
use capstan_tests::cluster::namespace;
use capstan_tests::host::TestHost;
use capstan_tests::run;
use tokio::sync::OnceCell;

/// A management cluster in which no host touches anything.
async fn server() -> &'static TestHost {
    static SERVER: OnceCell<TestHost> = OnceCell::const_new();
    SERVER.get_or_init(TestHost::without_host).await
}

macro_rules! real {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                run(async {
                    let host = server().await;
                    let space = stringify!($name).replace('_', "-");
                    namespace(host.kube(), &space).await;
                    let api = RealApi::new(host.kube().client());
                    behaviour::$name(&Place { api: &api, namespace: &space }).await;
                });
            }
        )*
    };
}

capstan_simulation::behaviours!(real);
