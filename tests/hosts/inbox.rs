//! The inbox and the claim of an attempt whose supervisor runs on another host than the server.

use std::time::{Duration, Instant};

use crate::hosts::{self, Peer};
use crate::support::wait::until;

/// A name that was asked for too early takes half a minute to appear.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn messages_cross_a_lagging_file_system() {
    let Some(cluster) = hosts::start("lagging") else { return };
    let attempt = cluster.shared().join("workers/w-1/attempts/1");
    std::fs::create_dir_all(cluster.folder().join("backing/workers")).unwrap();
    let (mut server, mut supervisor) = (Peer::on_login(&cluster), Peer::on_node(&cluster));
    assert_eq!(server.call("create", &attempt, ""), "created");
    assert_eq!(supervisor.call("claim", &attempt, ""), "true");
    assert_eq!(supervisor.call("read", &attempt, "0"), "");
    for number in 0..3 {
        assert_eq!(server.call("post", &attempt, &format!("m{number}")), "accepted");
        let began = Instant::now();
        let from = number.to_string();
        until("the message arrives", || supervisor.call("read", &attempt, &from) == format!("m{number}"));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }

    // The node has asked for this name too early, which makes the message invisible by its name.
    let next = attempt.join("inbox/000003.json").display().to_string();
    assert_eq!(supervisor.call("exists", &attempt, &next), "false");
    assert_eq!(server.call("post", &attempt, "m3"), "accepted");
    assert_eq!(supervisor.call("exists", &attempt, &next), "false", "the file system lags");
    assert_eq!(supervisor.call("close", &attempt, "3"), "m3", "an unread message keeps it open");
    assert_eq!(supervisor.call("close", &attempt, "4"), "");
    assert_eq!(server.call("post", &attempt, "m4"), "closed");
    assert_eq!(server.call("read", &attempt, "0"), "m0,m1,m2,m3");
}

#[test]
fn two_hosts_post_to_one_inbox() {
    let Some(cluster) = hosts::start("lagging") else { return };
    let attempt = cluster.shared().join("workers/w-1/attempts/1");
    std::fs::create_dir_all(cluster.folder().join("backing/workers")).unwrap();
    let (mut first, mut second) = (Peer::on_login(&cluster), Peer::on_node(&cluster));
    assert_eq!(first.call("create", &attempt, ""), "created");
    let next = attempt.join("inbox/000000.json").display().to_string();
    assert_eq!(second.call("exists", &attempt, &next), "false");
    assert_eq!(first.call("post", &attempt, "m0"), "accepted");
    assert_eq!(second.call("post", &attempt, "m1"), "accepted");
    assert_eq!(first.call("post", &attempt, "m2"), "accepted");
    assert_eq!(first.call("read", &attempt, "0"), "m0,m1,m2");
    assert_eq!(first.call("claim", &attempt, ""), "true");
    assert_eq!(first.call("close", &attempt, "3"), "");
    assert_eq!(second.call("post", &attempt, "m3"), "closed");
}

#[test]
fn claim_has_one_holder_on_all_hosts() {
    let Some(cluster) = hosts::start("lagging") else { return };
    let attempt = |number: u32| cluster.shared().join(format!("workers/w-1/attempts/{number}"));
    std::fs::create_dir_all(cluster.folder().join("backing/workers")).unwrap();
    let (mut server, mut supervisor) = (Peer::on_login(&cluster), Peer::on_node(&cluster));
    for number in 1..=2 {
        assert_eq!(server.call("create", &attempt(number), ""), "created");
        // Both have asked for the claim too early.
        assert_eq!(server.call("claimed", &attempt(number), ""), "false");
        assert_eq!(supervisor.call("claimed", &attempt(number), ""), "false");
    }
    assert_eq!(server.call("fence", &attempt(1), ""), "true");
    assert_eq!(supervisor.call("claim", &attempt(1), ""), "false");

    assert_eq!(supervisor.call("claim", &attempt(2), ""), "true");
    assert_eq!(server.call("fence", &attempt(2), ""), "false");
    assert_eq!(supervisor.call("claimed", &attempt(2), ""), "true");
    assert_eq!(server.call("revoke", &attempt(2), ""), "revoked");
    let began = Instant::now();
    until("the revocation is seen", || supervisor.call("claimed", &attempt(2), "") == "false");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}
