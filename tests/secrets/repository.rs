//! Files of a repository neither configure the server, nor make it run a program, nor redirect its state.

use std::path::Path;

use serde_json::json;

use crate::client::Client;
use crate::support::git::git;

fn repository(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    git(folder, &["init", "-q", "-b", "main"]);
    git(folder, &["config", "user.name", "T"]);
    git(folder, &["config", "user.email", "t@localhost"]);
    git(folder, &["commit", "-q", "--allow-empty", "-m", "first"]);
}

#[test]
fn settings_in_the_repository_are_not_read() {
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("repo");
    repository(&repo);
    let settings = "allow_full_permissions = true\nmax_workers = 1\n[[custom]]\nname = \"planted\"\nprogram = \"sh\"\n";
    let places = [
        "config.toml",
        "orchestrator-boss.toml",
        ".orchestrator-boss.toml",
        ".orchestrator-boss/config.toml",
        ".orchestrator/config.toml",
        ".config/orchestrator-boss/config.toml",
        "orchestrator-boss/config.toml",
    ];
    for place in places {
        let file = repo.join(place);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, settings).unwrap();
    }
    std::fs::write(repo.join(".env"), "ORCHESTRATOR_MAX_WORKERS=5\nORCHESTRATOR_STATE_DIR=/tmp/planted\n").unwrap();
    let mut client = Client::start_in(home, &repo, &[]);
    client.initialize("test", "2025-06-18");
    let mission = |backend: &str, permissions: &str| json!({"title": "x", "prompt": "x", "backend": backend, "permissions": permissions});
    let refusal = client.refused(1, "create_worker_mission", mission("planted", "edit"));
    assert!(refusal.contains("planted"), "{refusal}");
    let refusal = client.refused(2, "create_worker_mission", mission("codex", "full"));
    assert!(refusal.contains("the settings do not allow them"), "{refusal}");
}

#[test]
fn linked_state_folder_is_refused() {
    for (link, inside) in [(".orchestrator", false), (".orchestrator/workers", true)] {
        let home = tempfile::tempdir().unwrap();
        let (repo, elsewhere) = (home.path().join("repo"), home.path().join("elsewhere"));
        repository(&repo);
        std::fs::create_dir(&elsewhere).unwrap();
        if inside {
            std::fs::create_dir(repo.join(".orchestrator")).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, repo.join(link)).unwrap();
        let mut client = Client::start_in(home, &repo, &[]);
        client.initialize("test", "2025-06-18");
        let mission = json!({"title": "x", "prompt": "x", "backend": "codex"});
        let text = client.refused(1, "create_worker_mission", mission);
        assert!(text.contains("symbolic link") && text.contains("--state-dir"), "{text}");
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "a file was written elsewhere");
    }
}

#[test]
fn visible_state_folder_is_made_private() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("repo");
    repository(&repo);
    for folder in [".orchestrator", ".orchestrator/workers", ".orchestrator/journal"] {
        std::fs::create_dir(repo.join(folder)).unwrap();
        std::fs::set_permissions(repo.join(folder), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut client = Client::start_in(home, &repo, &[]);
    client.initialize("test", "2025-06-18");
    client.succeed(1, "create_worker_mission", json!({"title": "x", "prompt": "x", "backend": "codex"}));
    for folder in [".orchestrator", ".orchestrator/workers", ".orchestrator/journal"] {
        let mode = repo.join(folder).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{folder} is {mode:o}");
    }
}
