//! Cases of the connection keeper.
