//! Files that two hosts share, on a file system as bad as a network file system can be: new names, sizes and locks of one
//! host are invisible to the other for half a minute or for ever. `tests/slurm/fixture.sh` makes the hosts.
//!
//! Without Linux, root and the packages of `fixture.sh DIR install` each test prints SKIPPED; with `CI=true` it fails.

mod hosts;
mod inbox;
mod servers;
#[path = "../support/mod.rs"]
mod support;
