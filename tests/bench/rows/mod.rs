//! The rows of the table, in order.

mod calls;
mod cluster;
mod git;
mod many;
mod prepare;
mod rest;
mod settle;
mod spawn;

pub use calls::serve_answer;
pub use spawn::spawn_on_demand;

use crate::table::Line;

pub struct Row {
    pub name: &'static str,
    pub measure: fn() -> Vec<Line>,
}

pub const ALL: [Row; 27] = [
    Row { name: "start-folder", measure: spawn::in_a_folder },
    Row { name: "start-worktree", measure: spawn::in_a_worktree },
    Row { name: "start-batch", measure: spawn::a_batch },
    Row { name: "worktrees-at-once", measure: many::worktrees_at_once },
    Row { name: "batch-answered", measure: many::batch_answered },
    Row { name: "settle-folder", measure: settle::in_a_folder },
    Row { name: "settle-worktree", measure: settle::in_a_worktree },
    Row { name: "reads", measure: calls::reads },
    Row { name: "beside-waits", measure: calls::beside_waits },
    Row { name: "save", measure: many::save },
    Row { name: "restart", measure: many::restart },
    Row { name: "ballast", measure: spawn::beside_ballast },
    Row { name: "server-at-rest", measure: rest::server },
    Row { name: "supervisor-at-rest", measure: rest::supervisor },
    Row { name: "follow", measure: rest::follow },
    Row { name: "integrate", measure: git::integrate },
    Row { name: "radar", measure: git::collisions },
    Row { name: "salvage", measure: git::salvage },
    Row { name: "setup", measure: prepare::setup },
    Row { name: "seed", measure: prepare::seed },
    Row { name: "npm", measure: prepare::npm },
    Row { name: "cluster-start", measure: cluster::start },
    Row { name: "cluster-settle", measure: cluster::settle },
    Row { name: "cluster-cancel", measure: cluster::cancel },
    Row { name: "cluster-submit", measure: cluster::submit },
    Row { name: "cluster-calls", measure: cluster::calls },
    Row { name: "cluster-at-rest", measure: cluster::at_rest },
];
