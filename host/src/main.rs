//! Capstan: a Cluster API management host in one process.
fn main() {}
