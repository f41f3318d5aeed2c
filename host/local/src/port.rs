//! Picks loopback ports that are free, by binding them.
//!
//! Between the probe and the moment a child process binds the port, anybody may take it; callers
//! treat "address in use" from the child as a lost race and ask again.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// A loopback TCP port that was free a moment ago.
pub fn free() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Whether `port` can be bound on loopback now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_port_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
        assert_ne!(free().unwrap(), 0);
    }
}
