//! Stands for a backend that this host cannot have (any more): says so, whatever it is asked.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures::future::BoxFuture;

use super::backend::{Backend, BootOutcome, Counts, ExecOutput, Fault, MachineSpec, NetworkSpec};
use super::console::Console;

/// A backend that is not there, and why.
pub(crate) struct Absent(pub(crate) String);

impl Absent {
    fn refuse<T>(&self) -> io::Result<T> {
        Err(io::Error::new(io::ErrorKind::Unsupported, self.0.clone()))
    }

    fn refuses<T: Send + 'static>(&self) -> BoxFuture<'_, io::Result<T>> {
        Box::pin(async { self.refuse() })
    }
}

impl Backend for Absent {
    fn ensure_network(&self, _network: NetworkSpec) -> BoxFuture<'_, io::Result<IpAddr>> {
        self.refuses()
    }

    fn delete_network(&self, _id: &str) -> BoxFuture<'_, io::Result<()>> {
        self.refuses()
    }

    fn check_image(&self, _version: &str) -> Result<(), String> {
        Err(self.0.clone())
    }

    fn address(
        &self,
        _network: &NetworkSpec,
        _zone: &str,
        _taken: &BTreeSet<IpAddr>,
    ) -> io::Result<IpAddr> {
        self.refuse()
    }

    fn bootstrap(&self, _machine: MachineSpec, _console: Console) -> BoxFuture<'_, BootOutcome> {
        Box::pin(async { BootOutcome::Failed(self.0.clone()) })
    }

    fn boot(&self, _machine: MachineSpec, _console: Console) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err(self.0.clone()) })
    }

    fn until_off(&self, _instance: &str) -> BoxFuture<'_, String> {
        Box::pin(async { self.0.clone() })
    }

    fn stop(&self, _instance: &str) -> BoxFuture<'_, io::Result<()>> {
        self.refuses()
    }

    fn delete(&self, _instance: &str) -> BoxFuture<'_, io::Result<()>> {
        self.refuses()
    }

    fn fault(&self, _instance: &str, _fault: Fault) -> BoxFuture<'_, io::Result<()>> {
        self.refuses()
    }

    fn exec(&self, _instance: &str, _argv: Vec<String>) -> BoxFuture<'_, io::Result<ExecOutput>> {
        self.refuses()
    }

    fn unit_log(&self, _instance: &str, _unit: &str) -> io::Result<Vec<u8>> {
        self.refuse()
    }

    fn checks_readiness(&self) -> bool {
        false
    }

    fn shut_down(&self) {}

    fn counts(&self) -> Counts {
        Counts::default()
    }
}
