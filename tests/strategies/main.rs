//! The shipped upgrade strategies against the host's real decisions, without a server: whole rollouts told as stories, and
//! properties on many seeded ones.

mod bounds;
mod stories;
