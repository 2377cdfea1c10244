//! The file that holds the secrets.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::Secret;
use crate::access::{Group, NotPrivate, private};

/// The text of a secret file, wiped on drop.
#[derive(Clone)]
pub struct SecretFile {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: Zeroizing<String>,
}

/// A secret file that cannot be read or created.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error(
        "cannot read the secret file {path}: {error}; check keys.secret_file and the rights of the \
         file, or make one with `keystead keys new-secret > FILE`",
        path = .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// Others may read it, so they could forge every key.
    #[error("the secret file {path}: {error}", path = .path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// The cause, with the command that fixes it.
        error: NotPrivate,
    },
    /// It cannot be created.
    #[error(
        "cannot make the secret file {path}: {error}; make the folder writable, or name a secret \
         file in keys.secret_file",
        path = .path.display()
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

impl SecretFile {
    /// Reads a secret file. `group` is the access that a group of this process may
    /// have; others may have none.
    pub fn read(path: &Path, group: Group) -> Result<Self, SecretFileError> {
        let path = path.to_owned();
        let failed = |error| SecretFileError::Read { path: path.clone(), error };
        let mut file = File::open(&path).map_err(failed)?;
        private(&path, &file.metadata().map_err(failed)?, group)
            .map_err(|error| SecretFileError::NotPrivate { path: path.clone(), error })?;
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(failed)?;
        Ok(Self { path, text })
    }

    /// Writes one new secret to a draft, mode 0600. [`SecretDraft::keep`] moves it to
    /// `path`.
    ///
    /// The draft has another name, is synced to disk and then linked, so nobody ever
    /// reads a partial secret. A crash leaves at most a draft behind, which does no harm.
    pub fn draft(path: &Path) -> Result<SecretDraft, SecretFileError> {
        let failed = |error| SecretFileError::Create { path: path.to_owned(), error };
        let draft = write_draft(path).map_err(failed)?;
        let text = Self::read(&draft, Group::Writes)?.text;
        Ok(SecretDraft { draft, file: Self { path: path.to_owned(), text } })
    }
}

/// A new secret that is not yet at its path.
pub struct SecretDraft {
    draft: PathBuf,
    file: SecretFile,
}

impl SecretDraft {
    /// The text of the future file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.file.text
    }

    /// Links the draft to its path. If another process has just created that file, reads
    /// it instead.
    pub fn keep(self) -> Result<SecretFile, SecretFileError> {
        let path = self.file.path.clone();
        let failed = |error| SecretFileError::Create { path: path.clone(), error };
        match fs::hard_link(&self.draft, &path) {
            Ok(()) => sync_folder(&path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        SecretFile::read(&path, Group::Writes)
    }
}

impl Drop for SecretDraft {
    fn drop(&mut self) {
        // A draft that stays does no harm.
        let _ = fs::remove_file(&self.draft);
    }
}

/// Writes a new secret to a draft beside `path`, and returns the path of the draft.
///
/// The name is random: process ids do not tell containers apart, as each has a process
/// 1, and two containers may share a volume.
fn write_draft(path: &Path) -> io::Result<PathBuf> {
    let secret = Secret::generate()?;
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let draft = path.with_extension(format!("{}.draft", hex::encode(random)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = writeln!(file, "{}", secret.as_str()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // The write error is the more useful one.
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(draft)
}

/// Syncs the directory entry of a new file: keys minted next must not outlive their
/// secret after a power failure.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::key::{KeyRing, Prefix};

    fn make(path: &Path) -> Result<SecretFile, SecretFileError> {
        SecretFile::draft(path)?.keep()
    }

    #[test]
    fn created_file_is_private_valid_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystead.secret");
        let made = make(&path).unwrap();
        assert!(KeyRing::parse(&made.text, Prefix::default(), true).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(make(&path).unwrap().text, made.text);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn leftover_draft_does_not_block_creation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystead.secret");
        let of_this_process = format!("{}.draft", std::process::id());
        fs::write(path.with_extension(of_this_process), "half a sec").unwrap();
        assert!(make(&path).is_ok());
    }

    #[test]
    fn concurrent_creators_get_the_same_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystead.secret");
        let make = || make(&path).map(|made| made.text).unwrap();
        let texts: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(texts.iter().all(|text| *text == texts[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn read_error_names_the_file_and_the_remedy() {
        let error =
            SecretFile::read(Path::new("/nowhere/x"), Group::Reads).err().unwrap().to_string();
        assert!(error.contains("/nowhere/x") && error.contains("keys new-secret"), "{error}");
    }
}
