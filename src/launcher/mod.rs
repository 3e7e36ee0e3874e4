//! Starting a supervisor and connecting to it, at present only on this host. The interface is files first, so that
//! another launcher (a cluster's scheduler) could start the same supervisor elsewhere.

pub mod local;
#[cfg(test)]
mod messages;
pub mod slurm;
