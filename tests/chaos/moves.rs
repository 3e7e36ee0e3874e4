//! The moves of a round with a cluster: a launcher is drawn for each worker, and parts of the cluster die and come back.
//!
//! A worker that none of them can have reached must end as without them.

use serde_json::{Value, json};

use crate::hosts::{NODES, Node};
use crate::model::Mission;
use crate::round::Round;
use crate::world::World;

impl Round<'_> {
    /// Draws where each worker of a batch runs. Nothing is drawn without a cluster.
    pub fn draw_launchers(&mut self, batch: usize) {
        if self.world.cluster.is_none() {
            return;
        }
        for request in self.model.batches[batch].requests.clone() {
            self.model.mission(&request).on_cluster = !self.dice.once_in(3);
            self.note_dead_parts(&request);
        }
    }

    /// Draws where a retry runs, with or without naming a launcher.
    pub fn draw_launcher_of_retry(&mut self, request: &str, arguments: &mut Value) {
        if self.world.cluster.is_none() {
            return;
        }
        match self.dice.below(3) {
            0 => arguments["run_on"] = json!("local"),
            1 => {
                arguments["run_on"] = json!("cluster");
                self.model.mission(request).on_cluster = true;
            }
            _ => {}
        }
        self.note_dead_parts(request);
    }

    /// Notes that a new attempt may meet a dead part.
    pub fn note_dead_parts(&mut self, request: &str) {
        let meets = !self.parts.are_well();
        let mission = self.model.mission(request);
        mission.disturbed.host_failed |= meets && mission.on_cluster;
    }

    /// Changes a part of the cluster, or gives the cluster time to notice.
    pub fn move_cluster(&mut self, at: usize) {
        let node = self.dice.below(NODES as u64) as usize;
        let Some(hosts) = &self.world.cluster else { return };
        match self.dice.below(8) {
            0 | 1 => {
                hosts.toggle_controller(&mut self.parts);
                self.note_failure(None);
            }
            2 | 3 => {
                hosts.toggle_power(&mut self.parts, node);
                self.note_failure(Some(node));
            }
            4 | 5 => {
                hosts.toggle_daemon(&mut self.parts, node);
                self.note_failure(Some(node));
            }
            _ => self.let_time_pass(at),
        }
    }

    fn let_time_pass(&mut self, at: usize) {
        let seconds = 1 + self.dice.below(4);
        let answer = self.call_safely(at, "wait_for_any_worker", json!({ "timeout_seconds": seconds }));
        self.take_wait(at, answer);
    }

    /// Notes which workers the change of a node, or of the controller, may have reached. A daemon that comes back ends the
    /// jobs that were given up meanwhile, and a controller those whose start it had not saved.
    fn note_failure(&mut self, node: Option<usize>) {
        let Some(hosts) = &self.world.cluster else { return };
        let node = node.map(|node| hosts.name(node));
        for mission in self.model.missions.values_mut().filter(|mission| mission.on_cluster) {
            mission.disturbed.host_failed |= may_be_reached(self.world, mission, node.as_deref());
        }
    }

    /// Does what an administrator does about nodes that the controller no longer uses.
    pub fn resume_nodes(&self) {
        if let Some(hosts) = &self.world.cluster {
            hosts.resume_drained();
        }
    }

    /// Brings the controller back, and a node. The other one may stay dead until all workers have settled.
    pub fn bring_back_enough(&mut self) {
        let Some(hosts) = &self.world.cluster else { return };
        if self.parts.controller_dead {
            hosts.toggle_controller(&mut self.parts);
            self.note_failure(None);
        }
        for node in 0..NODES {
            let is_last = node == NODES - 1 && !self.parts.nodes.contains(&Node::Well);
            if self.parts.nodes[node] != Node::Well && (self.dice.once_in(2) || is_last) {
                hosts.bring_back(&mut self.parts, node);
                self.note_failure(Some(node));
            }
        }
    }
}

/// Returns whether the failure of this node, or of the controller, can change the end of a mission.
fn may_be_reached(world: &World, mission: &Mission, node: Option<&str>) -> bool {
    let has_more = mission.kind.starts() > 1 || mission.disturbed.retried || mission.disturbed.messaged;
    let Some(worker) = mission.worker.as_deref().filter(|_| !has_more) else { return true };
    let Some((_, newest)) = world.attempts(worker).pop() else { return true };
    if newest.join("outcome.json").exists() {
        return false;
    }
    let status = world.status_of(worker).unwrap_or_default();
    match (node, status["host"]["name"].as_str()) {
        (Some(failed), Some(its)) => failed == its,
        _ => true,
    }
}
