//! The page of a report in a browser is complete, inert, and readable on every screen.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator_boss::orchestrator::{RetryRequest, Scope};
use serde_json::{Value, json};

use crate::browser::{Browser, Scheme};
use crate::story::{self, PLANTED_KEY};
use crate::support::wait::{CEILING, in_time};
use crate::world::{World, mission};
use crate::{program, stderr, stdout};

/// A script that describes the loaded page, with details open and closed.
const LOOK: &str = include_str!("look.js");
/// The picture in the README; ORCHESTRATOR_BLESS=1 regenerates it.
const PICTURE: &str = "tests/report/report.png";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_is_complete_and_readable_on_every_screen() {
    let bless = std::env::var_os("ORCHESTRATOR_BLESS").is_some();
    let story = story::run(if bless { 6.0 } else { 0.05 }).await;
    let (path, html) = story.report(&[]);
    for part in
        ["Round to cents, never down", "attempt 1 failed", "FAIL cents", "the messages stay in English", "ledger"]
    {
        assert!(html.contains(part), "{part} is in the report");
    }
    assert!(!html.contains(PLANTED_KEY), "values of the settings are not shown");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "the report may have private output");
    if let Some(browser) = Browser::find() {
        if bless {
            let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join(PICTURE);
            browser.picture(&html, &picture, (1080, 1226), Scheme::Light);
        }
        let mut papers = Vec::new();
        for scheme in [Scheme::Light, Scheme::Dark] {
            for width in [400, 1280] {
                let seen = browser.ask(&html, LOOK, width, scheme);
                check_layout(&seen, width, &story.workers);
                papers.push(seen["paper"].clone());
            }
        }
        assert!(papers[0] == papers[1] && papers[2] == papers[3] && papers[0] != papers[2], "{papers:?}");
    }
    story.end().await;
}

fn check_layout(seen: &Value, width: u32, workers: &[String]) {
    let at = format!("at {width}: {seen:#}");
    assert_eq!(seen["width"], width, "{at}");
    assert_eq!(seen["beyond"], json!([]), "nothing is beyond the edge {at}");
    assert_eq!(seen["beyond_when_open"], json!([]), "{at}");
    assert_eq!(seen["open"], 0, "all is folded at first {at}");
    assert!(seen["details"].as_u64().unwrap() >= workers.len() as u64 * 2, "{at}");
    let expected: Vec<String> = workers.iter().map(|worker| format!("worker-{worker}")).collect();
    let mut there: Vec<String> = serde_json::from_value(seen["workers"].clone()).unwrap();
    there.sort();
    let mut sorted = expected.clone();
    sorted.sort();
    assert_eq!(there, sorted, "{at}");
    assert_eq!(seen["broken_links"], json!([]), "{at}");
    assert_eq!(seen["faint"], json!([]), "all text can be read {at}");
    assert_eq!(seen["faint_bars"], json!([]), "{at}");
    assert_eq!(seen["loaded"], json!([]), "nothing is loaded {at}");
    assert_eq!(seen["foreign"], json!([]), "{at}");
}

#[test]
fn readme_shows_a_small_report_picture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(fs::read_to_string(root.join("README.md")).unwrap().contains(&format!("]({PICTURE})")));
    let size = fs::metadata(root.join(PICTURE)).unwrap().len();
    assert!(size < 150_000, "{size}");
}

/// Checks everything that a model can write: titles, prompts, messages, commands, their output, file names, branches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_of_models_stays_text() {
    let hits = Arc::new(AtomicUsize::new(0));
    let address = listen(&hits);
    let evil = format!(
        "</script></title></style></pre></details><script>window.hostile = 1</script>\
         <img src=\"http://{address}/x\" onerror=\"window.hostile = 1\"><svg onload='window.hostile = 1'>\
         <link rel=stylesheet href=http://{address}/y><!-- &lt; \" ' `"
    );
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut draft = mission(
        &evil,
        &format!(
            "say {evil}\nrun echo \"{}\"\nedit {evil}\ndenied {evil}\nwrite <img>.txt x\ncommit {}\nresult error {evil}",
            evil.replace('"', "\\\"").replace('`', ""),
            "<b>work</b>",
        ),
    );
    draft.verify_command = Some(format!("echo '{}'", evil.replace('\'', "")));
    let id = server.create_one(draft).await;
    server.wait(&[&id], CEILING).await;
    let output = program(&world.path("home"), &world.repo()).args(["report", "--output", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let html = stdout(&output);
    assert!(html.contains("&lt;script&gt;window.hostile"), "it is shown as text");
    assert!(html.contains("Not permitted"), "the refused action is named");
    assert!(!html.contains("<script") && !html.contains("<img"), "no element comes from the text");
    let page = world.path("hostile.html");
    fs::write(&page, &html).unwrap();
    if let Some(browser) = Browser::find() {
        // This copy allows scripts, so an injected one would run.
        let seen = browser.ask(&html, LOOK, 400, Scheme::Light);
        assert_eq!((&seen["hostile"], &seen["foreign"]), (&json!(0), &json!([])), "{seen:#}");
        assert_eq!(seen["beyond_when_open"], json!([]), "{seen:#}");
        browser.load(&page);
        assert_eq!(hits.load(Ordering::SeqCst), 0, "nothing is fetched");

        // The page's policy also prevents an injected element from loading anything.
        let image = format!("<body><img src=\"http://{address}/through\">");
        fs::write(&page, html.replacen("<body>", &image, 1)).unwrap();
        browser.load(&page);
        assert_eq!(hits.load(Ordering::SeqCst), 0, "the policy forbids it");
        let without = html.replacen("<body>", &image, 1).replace("http-equiv=\"Content-Security-Policy\"", "");
        fs::write(&page, without).unwrap();
        browser.load(&page);
        assert!(hits.load(Ordering::SeqCst) > 0, "without the policy it is loaded");
    }
    server.orchestrator.shut_down().await;
}

/// Starts a server that counts requests, and returns its address.
fn listen(hits: &Arc<AtomicUsize>) -> String {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a free port");
    let address = server.server_addr().to_ip().expect("an address").to_string();
    let hits = Arc::clone(hits);
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            hits.fetch_add(1, Ordering::SeqCst);
            let _ = request.respond(tiny_http::Response::from_string("x"));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_report_is_limited_and_names_omissions() {
    const WORKERS: usize = 200;
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(0);
    let server = world.server_with(Some("boss"), settings);
    let drafts = (0..WORKERS).map(|n| mission(&format!("task {n}"), "say x")).collect();
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    let (ended, _) = server.orchestrator.cancel_all(&server.boss, Scope::Mine, "not needed").await.unwrap();
    assert_eq!(ended.len(), WORKERS);
    let line = |n: usize| json!({"at": "2026-11-22T12:00:00Z", "event": "said", "text": format!("{n} {}", "<word> ".repeat(80))});
    let some: String = (0..700).map(|n| format!("{}\n", line(n))).collect();
    // Simulates 10 MB of output each; holes need no disk space.
    for id in &ids {
        let folder = world.repo().join(format!(".orchestrator/workers/{id}/attempts/1"));
        fs::create_dir_all(&folder).unwrap();
        let mut file = fs::File::create(folder.join("events.jsonl")).unwrap();
        file.write_all(some.as_bytes()).unwrap();
        file.set_len(10_000_000).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        file.write_all(format!("\n{some}").as_bytes()).unwrap();
    }
    let output = program(&world.path("home"), &world.repo()).args(["report", "--output", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let html = stdout(&output);
    assert!(html.len() < 24 << 20, "{} bytes", html.len());
    assert!(html.len() > 4 << 20, "most of the log is shown: {} bytes", html.len());
    assert_eq!(html.matches("<article").count(), WORKERS);
    let log = world.repo().join(format!(".orchestrator/workers/{}/attempts/1/events.jsonl", ids[7]));
    assert!(html.contains(&*log.to_string_lossy()), "the path of the rest is shown");
    server.orchestrator.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_filters_and_overwrites_only_reports() {
    let world = World::new();
    let run = |arguments: &[&str]| {
        let output = program(&world.path("home"), &world.repo()).arg("report").args(arguments).output().unwrap();
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let (code, _, said) = run(&[]);
    assert!(code == Some(1) && said.contains("no missions here yet"), "{said}");
    for boss in ["anna", "bert"] {
        let server = world.server(Some(boss));
        let id = server.create_one(mission(&format!("of {boss}"), "say done")).await;
        server.wait(&[&id], CEILING).await;
        server.orchestrator.shut_down().await;
    }
    let (code, html, _) = run(&["--boss", "anna", "--output", "-"]);
    assert!(code == Some(0) && html.contains("of anna") && !html.contains("of bert"));
    let (_, html, _) = run(&["--output", "-"]);
    assert!(html.contains("Timeline of boss 1") && html.contains("Timeline of boss 2"));
    let (code, _, said) = run(&["--since", "2199-01-01"]);
    assert!(code == Some(1) && said.contains("--since"), "{said}");
    assert_eq!(run(&["--since", "yesterday"]).0, Some(2));
    let (_, html, _) = run(&["--since", "1h", "--output", "-"]);
    assert_eq!(html.matches("<article").count(), 2);

    let (code, report, _) = run(&["--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let path = world.repo().join(report["path"].as_str().unwrap());
    assert!(code == Some(0) && path.is_file() && report["workers"] == 2, "{report}");
    assert!(report["path"].as_str().unwrap().starts_with("orchestrator-report-2"), "{report}");
    assert_eq!(run(&[]).0, Some(0), "a report is written over");
    let (code, _, said) = run(&["--output", "README"]);
    assert!(code == Some(1) && said.contains("cannot overwrite README: it is not a report"), "{said}");
    assert_eq!(fs::read_to_string(world.repo().join("README")).unwrap(), "hello\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasons_and_authors_have_their_own_names() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let run = |arguments: &[&str]| {
        let output = program(&world.path("home"), &world.repo()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    let asks = server.create_one(mission("asks", "session s-1\nsay BLOCKED: which <key>?")).await;
    server.wait(&[&asks], CEILING).await;
    let attempts = async |count: usize| {
        let settled = async || server.orchestrator.get(&asks).await.unwrap().worker.settled.len() == count;
        assert!(in_time(settled).await, "attempt {count} never settled");
    };
    run(&["message", &asks, "the second key"]);
    attempts(2).await;
    let feedback = RetryRequest { feedback: Some("use tabs".into()), ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, &asks, feedback).await.unwrap();
    attempts(3).await;
    let stopped = server.create_one(mission("stopped", "hang")).await;
    server.until(&stopped, "running").await;
    run(&["message", &stopped, "look at b"]);
    run(&["cancel", &stopped, "--reason", "the plan has changed"]);
    let mut unprepared = mission("unprepared", "say x");
    unprepared.setup_command = Some("echo no registry; exit 3".into());
    let unprepared = server.create_one(unprepared).await;
    server.wait(&[&unprepared], CEILING).await;
    let html = run(&["report", "--output", "-"]);
    for part in [
        "Question: which &lt;key&gt;?",
        "<b>User: </b>the second key",
        "<b>Boss: </b>use tabs",
        "by the user: the plan has changed",
        "cancelled by the user: the plan has changed",
        "<dt>Message</dt><dd><b>User: </b>look at b (not delivered)",
        "Ended by</dt><dd>setup failed: ",
        "<pre>no registry</pre>",
    ] {
        assert!(html.contains(part), "{part} is not in\n{html}");
    }
    if let Some(browser) = Browser::find() {
        for width in [400, 1280] {
            let seen = browser.ask(&html, LOOK, width, Scheme::Dark);
            assert_eq!((&seen["beyond_when_open"], &seen["faint"]), (&json!([]), &json!([])), "{seen:#}");
        }
    }
    server.orchestrator.shut_down().await;
}
