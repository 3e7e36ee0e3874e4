//! Seeding of worktrees on a disk that clones files: content beyond the copy limit arrives, uses no space, and is
//! independent of the original.

use std::fs;

use serde_json::json;

use crate::disk::with_cloning_disk;
use crate::world::{World, create, mission, settled};

const FILES: usize = 40;
const FILE_BYTES: usize = 4 << 20;

#[test]
fn seed_is_cloned_where_copies_would_not_fit() {
    // 160 MiB twice are more than the disk has.
    with_cloning_disk(320, |disk| {
        let world = World::at(&disk.root()).set("seed = [\"cache\"]").set("seed_limit_mib = 1");
        fs::write(world.repo().join(".gitignore"), "cache/\n").unwrap();
        world.git(&["add", "."]);
        world.git(&["commit", "-qm", "ignore"]);
        let cache = world.repo().join("cache");
        fs::create_dir(&cache).unwrap();
        for number in 0..FILES {
            fs::write(cache.join(number.to_string()), vec![number as u8; FILE_BYTES]).unwrap();
        }
        let mut boss = world.boss();
        let script = "run test $(ls cache | wc -l) = 40\nrun echo changed > cache/7";
        let worker = create(&mut boss, mission("t", script));
        let settled = settled(&mut boss, &worker);
        assert_eq!(settled["status"], "completed", "{settled:#}");
        assert_eq!(settled["outcome"]["changes"]["notes"], json!(null), "nothing was left out: {settled:#}");
        let seeded = world.worktree(&worker).join("cache");
        assert_eq!(fs::read(seeded.join("8")).unwrap(), vec![8; FILE_BYTES]);
        assert_eq!(fs::read(seeded.join("7")).unwrap(), b"changed\n");
        assert_eq!(fs::read(cache.join("7")).unwrap(), vec![7; FILE_BYTES], "the original is unchanged");
    });
}
