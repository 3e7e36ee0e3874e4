//! Random arguments for every tool, by its own schema.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::check::Sealed;
use crate::hostile;

fn cases() -> u32 {
    std::env::var("ORCHESTRATOR_INPUT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

#[test]
fn every_tool_answers_random_arguments() {
    let sealed = RefCell::new(Sealed::new());
    let marks = sealed.borrow().outside().to_string_lossy().into_owned();
    let (refused, text) = sealed
        .borrow_mut()
        .ask("create_worker_mission", &json!({"title": "one", "prompt": "x", "backend": "codex"}))
        .unwrap();
    assert!(!refused, "{text}");
    let surface = orchestrator_boss::mcp::surface();
    let calls: Vec<BoxedStrategy<(String, Value)>> = surface["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| {
            let name = tool["name"].as_str().unwrap().to_owned();
            hostile::object(&tool["inputSchema"], &marks).prop_map(move |arguments| (name.clone(), arguments)).boxed()
        })
        .collect();
    let counts = RefCell::new((0, 0));
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let found = TestRunner::new(config).run(&prop::strategy::Union::new(calls), |(tool, arguments)| {
        let (refused, _) = sealed
            .borrow_mut()
            .ask(&tool, &arguments)
            .map_err(|wrong| TestCaseError::fail(format!("{tool}: {wrong}")))?;
        let mut counts = counts.borrow_mut();
        if refused {
            counts.0 += 1
        } else {
            counts.1 += 1
        }
        Ok(())
    });
    found.unwrap_or_else(|error| panic!("{error}"));
    sealed.borrow_mut().check_end_state();
    let (refused, done) = counts.into_inner();
    // Otherwise nothing behind the checks would be tested.
    assert!(refused > 20 && done > 20, "{refused} refused, {done} done");
}
