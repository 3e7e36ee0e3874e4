//! Helpers of the end-to-end tests: a sealed repository with the fake CLI ([`sandbox`]), git without the user's
//! configuration ([`git`]), polling with a ceiling ([`wait`]), the process table ([`processes`]), a boss that speaks
//! JSON lines ([`json_lines`]), and a Slurm cluster ([`cluster`]). Helpers of a single group of tests stay with that
//! group.

// Each test binary uses a different part.
#![allow(dead_code)]

pub mod cluster;
pub mod git;
pub mod json_lines;
pub mod processes;
pub mod sandbox;
pub mod wait;
pub mod wheel;
