//! The first key of a new store, and the first screen: a check, and an outage to try.

use std::{
    env,
    net::SocketAddr,
    path::{self, Path, PathBuf},
};

use crate::{
    app::{Opened, open_store},
    cli::{
        Failure,
        check::{server_flag, url_of},
        provenance,
    },
    config::Config,
    key::{Environment, Minted, Rights},
    manage,
    store::{Lookups, StoreUrl},
};

/// What the first key may do: what the examples of the documentation ask for.
const SCOPE: &str = "read";

/// The first key of a store.
#[derive(Debug)]
pub(super) struct First {
    pub(super) key: Minted,
    /// Of the right form, and in no store.
    unknown: Minted,
    /// The file of the store, absolute.
    store: PathBuf,
}

/// Where the service listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Where `/auth` is.
    pub(super) auth: SocketAddr,
}

/// Mints the first key of an embedded store that holds none, and has lost none: a
/// new key would speak for the store. A secret that was brought along may have keys
/// elsewhere. A server is left alone: several instances would each mint one, and
/// what they print goes to a log.
pub(super) async fn first_key(config: &Config) -> Result<Option<First>, Failure> {
    let StoreUrl::Sqlite { path } = &config.store.url else {
        return Ok(None);
    };
    if config.keys.secret_file.is_some() {
        return Ok(None);
    }
    let Opened { store, ring, .. } = open_store(config).await?;
    if store.history().await?.is_some_and(|history| history.any || history.expected > 0) {
        return Ok(None);
    }
    let unknown = ring.mint(Environment::Live)?;
    let rights = Rights {
        principal: "first".to_owned(),
        name: "made by `keystead serve` for an empty store".to_owned(),
        scopes: vec![SCOPE.to_owned()],
        ..Rights::default()
    };
    let by = provenance::of("serve".to_owned());
    let first = manage::create(&store, &ring, Environment::Live, rights, &by).await?;
    Ok(Some(First { key: first.minted, unknown, store: path::absolute(path)? }))
}

impl First {
    /// The first screen. Its commands work from any folder.
    pub(super) fn welcome(&self, Addresses { grpc, admin, auth }: Addresses) -> String {
        let program = env::current_exe().unwrap_or_else(|_| PathBuf::from("keystead"));
        let program = shell_word(&program.to_string_lossy());
        let server = server_flag(grpc);
        let [auth, admin] = [auth, admin].map(url_of);
        let auth = shell_word(&format!("{auth}/auth?scopes={SCOPE}"));
        let (id, key, unknown) = (&self.key.id, self.key.key.expose(), self.unknown.key.expose());
        let store = shell_word(&StoreUrl::Sqlite { path: self.store.clone() }.to_string());
        let [file, away] =
            [self.store.clone(), away(&self.store)].map(|path| shell_word(&path.to_string_lossy()));
        format!(
            "The store held no key, so one was made, with the scope `{SCOPE}`. It is shown this once:

    {key}

Check it from another terminal, over gRPC and over HTTP:

    {program} check {key} --scope {SCOPE}{server}
    curl -i -H 'authorization: Bearer {key}' {auth}

Now an outage: move the store away. The key goes on working; of one that was never seen
nobody can say anything, and it is told so (UNAVAILABLE), never that it is not valid:

    mv {file} {away}
    {program} check {key}{server}
    {program} check {unknown}{server}

Move it back. Within seconds the store can say that there is no such key:

    mv {away} {file}
    {program} check {unknown}{server}

Revoke the key, and check it again: it is refused within 50 ms.

    {program} keys revoke {id} --store {store}

How this instance is, also during the outage: {admin}/status

"
        )
    }
}

/// Where the store is moved to.
fn away(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".away");
    path.into()
}

/// Quotes a text as one word of a shell.
fn shell_word(text: &str) -> String {
    shlex::try_quote(text).unwrap_or_default().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyRing, Prefix, Secret};

    fn welcome(store: &str) -> String {
        let ring = KeyRing::parse(&Secret::generate().unwrap(), Prefix::default(), true).unwrap();
        let [key, unknown] = [(); 2].map(|()| ring.mint(Environment::Live).unwrap());
        let first = First { key, unknown, store: store.into() };
        let listen = Config::default().listen;
        let addresses = Addresses { grpc: listen.grpc, admin: listen.admin, auth: listen.admin };
        first.welcome(addresses).replace(&first.key.id.to_string(), "ID")
    }

    #[test]
    fn commands_find_the_same_store_whatever_its_name() {
        for (path, url, away) in [
            ("/var/lib/k.db", "sqlite:/var/lib/k.db", "/var/lib/k.db.away"),
            ("/my keys.db", "'sqlite:/my keys.db'", "'/my keys.db.away'"),
            ("/$(a)'b.db", r#"'sqlite:/$(a)'"'b.db""#, r#"'/$(a)'"'b.db.away""#),
        ] {
            let text = welcome(path);
            let revoke = format!(" keys revoke ID --store {url}\n");
            assert!(text.contains(&revoke) && text.contains(&format!(" {away}\n")), "{text}");
        }
    }
}
