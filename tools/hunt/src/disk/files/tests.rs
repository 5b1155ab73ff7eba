//! Tests of the disk: what a power failure may leave.

use super::*;

fn content(disk: &Disk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(name).ok()?;
    let mut bytes = vec![0; file.length().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// All contents that a power failure can leave after `act`.
fn outcomes(act: impl Fn(&Disk)) -> std::collections::BTreeSet<Option<Vec<u8>>> {
    let outcome = |seed| {
        let disk = Disk::new();
        act(&disk);
        disk.restart(&mut Random::of(seed, "test", 0));
        content(&disk, "a")
    };
    (0..500).map(outcome).collect()
}

#[test]
fn what_was_synced_stays_and_what_was_not_may_be_lost_or_torn() {
    let found = outcomes(|disk| {
        let file = disk.create("a").unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync().unwrap();
        disk.sync_names().unwrap();
        file.write_at(b"two", 3).unwrap();
    });
    let expected = ["one", "onet", "onetw", "onetwo"];
    assert_eq!(found, expected.map(|text| Some(text.as_bytes().to_vec())).into());
}

#[test]
fn a_name_that_was_not_synced_may_be_lost() {
    let found = outcomes(|disk| {
        let file = disk.create("b").unwrap();
        file.write_at(b"x", 0).unwrap();
        file.sync().unwrap();
        disk.rename("b", "a").unwrap();
    });
    assert_eq!(found, [None, Some(b"x".to_vec())].into());
}

#[test]
fn sectors_stop_at_different_writes_and_each_keeps_the_order_of_its_own() {
    let found = outcomes(|disk| {
        let file = disk.create("a").unwrap();
        disk.sync_names().unwrap();
        file.write_at(&[1], 0).unwrap();
        file.write_at(&[2], 1).unwrap();
        file.write_at(&[3], SECTOR_BYTES as u64).unwrap();
    });
    let seen = |bytes: &Vec<u8>| [0, 1, SECTOR_BYTES].map(|at| bytes.get(at).copied().unwrap_or(0));
    let seen: std::collections::BTreeSet<_> = found.iter().flatten().map(seen).collect();
    assert!(seen.contains(&[0, 0, 3]) && seen.contains(&[1, 2, 0]) && seen.contains(&[1, 0, 3]));
    assert!(seen.iter().all(|[first, second, _]| *first == 1 || *second == 0), "{seen:?}");
}

#[test]
fn a_lost_write_stays_lost_after_a_sync_that_failed() {
    let always = Faults { sync_fails: 1, ..Faults::default() };
    let lost = (0..50).any(|seed| {
        let disk = Disk::new();
        let file = disk.create("a").unwrap();
        disk.sync_names().unwrap();
        disk.begin(Random::of(seed, "test", 0), always);
        file.write_at(&[7], 0).unwrap();
        file.sync().unwrap_err();
        disk.begin(Random::of(seed, "test", 0), Faults::default());
        file.sync().unwrap();
        disk.0.lock().inodes[0].durable.is_empty()
    });
    assert!(lost);
}
