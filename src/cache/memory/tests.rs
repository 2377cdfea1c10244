use std::{num::NonZeroUsize, time::Duration};

use tokio::time::advance;

use super::*;
use crate::store::{
    Store,
    fake::{FakeStore, Mood, record},
};

const KEY: Digest = Digest::from_bytes([7; 32]);
const OTHER: Digest = Digest::from_bytes([8; 32]);

/// What a store says that knows [`KEY`] alone.
async fn answers() -> (Answer, Answer) {
    let store = FakeStore::new(Mood::Answers);
    store.put(KEY, record("acme", 1));
    let lookup = store.find(&[KEY, OTHER]).await.unwrap();
    (lookup.get(&KEY).unwrap().clone(), lookup.get(&OTHER).unwrap().clone())
}

fn memory(max_entries: usize, max_absent: usize) -> Memory {
    let config = CacheConfig {
        max_entries: NonZeroUsize::new(max_entries).unwrap(),
        max_absent: NonZeroUsize::new(max_absent).unwrap(),
        fresh_for: Duration::from_secs(30),
        absent_for: Duration::from_secs(5),
    };
    Memory::new(config, Clock::System)
}

#[tokio::test(start_paused = true)]
async fn a_record_is_fresh_for_its_window_and_then_not_served() {
    let (found, _) = answers().await;
    let memory = memory(10, 10);
    let asked = Instant::now();
    memory.put(KEY, &found, asked);
    advance(Duration::from_millis(26_900)).await;
    let sighting = memory.get(&KEY).unwrap();
    assert_eq!((sighting.answer, sighting.validated_at), (found, asked));
    advance(Duration::from_millis(6_100)).await;
    assert_eq!(memory.get(&KEY), None, "33 s are past 30 s and a tenth");
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_believed_for_a_window_of_its_own() {
    let (_, absent) = answers().await;
    let memory = memory(10, 10);
    memory.put(OTHER, &absent, Instant::now());
    advance(Duration::from_millis(4_400)).await;
    assert_eq!(memory.get(&OTHER).unwrap().answer, absent);
    advance(Duration::from_millis(1_200)).await;
    assert_eq!(memory.get(&OTHER), None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_took_long_is_not_fresh_for_longer() {
    let (found, _) = answers().await;
    let memory = memory(10, 10);
    let asked = Instant::now();
    advance(Duration::from_secs(33)).await;
    memory.put(KEY, &found, asked);
    assert_eq!(memory.get(&KEY), None);
}

#[tokio::test(start_paused = true)]
async fn a_record_ends_an_absence_and_an_absence_ends_a_record() {
    let (found, absent) = answers().await;
    let memory = memory(10, 10);
    memory.put(KEY, &absent, Instant::now());
    memory.put(KEY, &found, Instant::now());
    assert_eq!(memory.get(&KEY).unwrap().answer, found);
    memory.put(KEY, &absent, Instant::now());
    assert_eq!(memory.get(&KEY).unwrap().answer, absent);
    assert!(memory.is_empty());
    memory.forget(&KEY);
    assert_eq!(memory.get(&KEY), None);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_absences_stays_in_its_bound_and_pushes_out_no_record() {
    let (found, absent) = answers().await;
    let memory = memory(100, 50);
    memory.put(KEY, &found, Instant::now());
    for n in 0..10_000_u32 {
        memory.put(Digest::sha256_of(&n.to_be_bytes()), &absent, Instant::now());
    }
    assert!(memory.absences.len() <= 50, "{}", memory.absences.len());
    assert_eq!(memory.get(&KEY).unwrap().answer, found);
}

#[tokio::test(start_paused = true)]
async fn records_stay_in_their_bound() {
    let (found, _) = answers().await;
    let memory = memory(100, 50);
    for n in 0..10_000_u32 {
        memory.put(Digest::sha256_of(&n.to_be_bytes()), &found, Instant::now());
    }
    assert!(memory.len() <= 100, "{}", memory.len());
}
