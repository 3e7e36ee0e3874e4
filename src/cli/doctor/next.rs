//! The user's next step: what `doctor` prints last.

use super::check::{Finding, Severity};
use super::{Topic, Verdict};
use crate::cli::setup;

pub fn next(topics: &[Topic], verdict: &Verdict) -> String {
    let of_topic =
        |name: &'static str| topics.iter().filter(move |topic| topic.name == name).flat_map(|topic| &topic.checks);
    if !verdict.stops.is_empty() {
        let stopping = topics.iter().flat_map(|topic| &topic.checks).filter(|check| check.stops_all);
        return first_fix(stopping).unwrap_or_else(|| format!("check {}", verdict.stops.join(", ")));
    }
    if topics.iter().any(|topic| topic.name == super::cluster::NODE) {
        let is_useful = verdict.works() || verdict.could_work();
        let fix = first_fix(of_topic(super::cluster::NODE)).filter(|_| !is_useful);
        let otherwise =
            if is_useful { "name the launcher as `run_on` in missions" } else { "install an agent CLI on the nodes" };
        return fix.unwrap_or_else(|| otherwise.to_owned());
    }
    if !verdict.works() && !verdict.could_work() {
        let installed = of_topic("agents").filter(|check| check.severity == Severity::Bad);
        return first_fix(installed.chain(of_topic("agents"))).unwrap_or_else(|| "install an agent CLI".to_owned());
    }
    let clients: Vec<&Finding> = of_topic("clients").collect();
    match clients.iter().find(|check| check.severity == Severity::Ok) {
        Some(check) => setup::first_step(&check.name),
        None => registration(&clients, &verdict.usable.surely),
    }
}

/// Returns the command that registers the server, with a client that is known to be logged in if possible.
fn registration(clients: &[&Finding], usable: &[String]) -> String {
    let is_offered = |setup: &String| clients.iter().any(|check| check.fix.contains(setup));
    let usable = usable.iter().filter_map(|backend| setup::command_for(backend)).find(is_offered);
    let first = || first_fix(clients.iter().copied());
    usable.or_else(first).unwrap_or_else(|| "orchestrator-boss setup CLIENT, for the agent that you use".to_owned())
}

fn first_fix<'a>(mut checks: impl Iterator<Item = &'a Finding>) -> Option<String> {
    checks.find_map(|check| check.fix.first().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::agents::Usable;

    fn verdict(surely: &[&str], stops: &[&str]) -> Verdict {
        let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        Verdict { usable: Usable { surely: list(surely), ..Usable::default() }, stops: list(stops) }
    }

    #[test]
    fn next_step_is_the_first_that_is_missing() {
        let codex = setup::command_for("codex").unwrap();
        let unregistered = Finding::warn("clients", "none").fix("setup claude").fix(codex.clone());
        let topics = |client: Finding| {
            let git = Finding::bad("git", "missing").fix("install git").stops_all();
            let agents = vec![Finding::warn("codex", "not installed").fix("npm"), Finding::bad("x", "").fix("log in")];
            [
                Topic { name: "git", checks: vec![Finding::warn("other", "").fix("no"), git] },
                Topic { name: "agents", checks: agents },
                Topic { name: "clients", checks: vec![client] },
            ]
        };
        let step = |client: &Finding, verdict: &Verdict| next(&topics(client.clone()), verdict);
        assert_eq!(step(&unregistered, &verdict(&["codex"], &["git"])), "install git");
        assert_eq!(step(&unregistered, &verdict(&[], &[])), "log in");
        assert_eq!(step(&unregistered, &verdict(&["codex"], &[])), codex);
        assert_eq!(step(&unregistered, &verdict(&["my-agent"], &[])), "setup claude");
        let registered = Finding::ok("Gemini CLI", "starts this program");
        assert!(
            step(&registered, &verdict(&["codex"], &[])).starts_with("start `gemini` in your repository and say: ")
        );
        let plugin = Finding::ok("plugin", "starts this program");
        assert!(step(&plugin, &verdict(&["codex"], &[])).starts_with("start `claude` in"));
    }
}
