//! What a lookup of n keys costs a real PostgreSQL: the two numbers that the
//! simulation rests on.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, NoTls, types::Type};

use crate::random::Random;

/// How many keys the table has; the digest of the i-th is the SHA-256 of i as
/// text.
const KEYS: u32 = 1_000_000;

/// How many digests a query asks about.
const SIZES: [u32; 4] = [1, 16, 64, 256];

/// How many connections ask at once.
const AT_ONCE: [u32; 3] = [1, 4, 8];

/// How long each combination is measured.
const LASTS: Duration = Duration::from_secs(5);

/// The statement of the service.
const FIND: &str = "SELECT id::text, digest, secret::text, hint::text, principal::text, \
    name::text, scopes::text[], allowed_networks::text[], audiences::text[], metadata::text, \
    state::text, not_before, expires_at, created_at, last_used_at, revision::bigint \
    FROM keystead.api_keys WHERE digest = ANY($1::bytea[])";

/// Fills the table of a migrated database that holds no key yet, and measures.
pub(crate) fn run(url: &str) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    runtime.block_on(async {
        let client = connect(url).await?;
        fill(&client).await?;
        println!(
            "{:>8} {:>5} {:>9} {:>9} {:>9} {:>10} {:>10}",
            "at once", "n", "mean ms", "p50 ms", "p99 ms", "queries/s", "keys/s"
        );
        for at_once in AT_ONCE {
            let mut points = Vec::new();
            for size in SIZES {
                let times = ask(url, at_once, size).await?;
                points.push((f64::from(size), print(at_once, size, times)));
            }
            let (a, b) = line_through(&points);
            println!("{at_once:>8} query time = {a:.3} ms + n x {b:.5} ms");
        }
        Ok(())
    })
}

async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its client")]
    tokio::spawn(connection);
    Ok(client)
}

/// Without the triggers, which would number a million changes.
async fn fill(client: &Client) -> Result<(), Error> {
    let there = client.query_one("SELECT count(*) FROM keystead.api_keys", &[]).await?;
    if there.get::<_, i64>(0) == i64::from(KEYS) {
        return Ok(());
    }
    let insert = format!(
        "SET session_replication_role = replica;
         TRUNCATE keystead.api_keys;
         INSERT INTO keystead.api_keys
             (id, digest, secret, hint, principal, name, scopes, metadata, revision)
         SELECT 'key_' || lpad(i::text, 24, '0'), sha256(i::text::bytea), '0123456789abcdef',
             'ks_live_...abcd', 'acme-' || i % 5000, 'key ' || i, '{{read,write}}',
             '{{\"plan\": \"pro\"}}', i
         FROM generate_series(1, {KEYS}) AS i;
         SET session_replication_role = origin;"
    );
    client.batch_execute(&insert).await?;
    client.batch_execute("VACUUM ANALYZE keystead.api_keys").await
}

/// How long each query took. Each connection asks again as soon as it has been
/// answered.
async fn ask(url: &str, at_once: u32, size: u32) -> Result<Vec<Duration>, Error> {
    let mut asking = Vec::new();
    for seed in 0..at_once {
        let client = connect(url).await?;
        asking.push(keep_asking(client, u64::from(seed), size));
    }
    let times = futures::future::try_join_all(asking).await?;
    Ok(times.concat())
}

async fn keep_asking(client: Client, seed: u64, size: u32) -> Result<Vec<Duration>, Error> {
    let mut random = Random::new(seed);
    let digests = digests(&client).await?;
    let statement = client.prepare_typed(FIND, &[Type::BYTEA_ARRAY]).await?;
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < LASTS {
        let mut draw = || {
            let place = random.bits() % u64::try_from(digests.len()).expect("it fits");
            &digests[usize::try_from(place).expect("less than all")][..]
        };
        let asked: Vec<&[u8]> = (0..size).map(|_| draw()).collect();
        let asking = Instant::now();
        client.query(&statement, &[&asked]).await?;
        times.push(asking.elapsed());
    }
    Ok(times)
}

/// A tenth of all digests, from all over the table.
async fn digests(client: &Client) -> Result<Vec<Vec<u8>>, Error> {
    let select =
        format!("SELECT sha256((i * 10)::text::bytea) FROM generate_series(1, {KEYS} / 10) AS i");
    let rows = client.query(&select, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Prints a line, and returns the mean in milliseconds.
fn print(at_once: u32, size: u32, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let count = u32::try_from(times.len()).expect("fewer than 2^32 in a few seconds");
    let mean = millis(times.iter().sum::<Duration>() / count);
    let of = |percent: usize| millis(times[times.len() * percent / 100]);
    let queries = f64::from(count) / LASTS.as_secs_f64();
    println!(
        "{at_once:>8} {size:>5} {mean:>9.3} {:>9.3} {:>9.3} {queries:>10.0} {:>10.0}",
        of(50),
        of(99),
        queries * f64::from(size)
    );
    mean
}

/// Least squares: the two numbers of `y = a + b x`.
fn line_through(points: &[(f64, f64)]) -> (f64, f64) {
    let count = f64::from(u32::try_from(points.len()).expect("a few"));
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>()
        / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    (y - slope * x, slope)
}
