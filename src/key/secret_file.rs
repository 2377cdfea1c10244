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

/// The text of a secret file, wiped when dropped.
#[derive(Clone)]
pub struct SecretFile {
    /// Where it was read.
    pub path: PathBuf,
    /// What it holds.
    pub text: Zeroizing<String>,
}

/// A secret file that cannot be read or made.
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
        /// Why.
        error: io::Error,
    },
    /// Others may read it: every key could be forged.
    #[error("the secret file {path}: {error}", path = .path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// What to run.
        error: NotPrivate,
    },
    /// It cannot be made.
    #[error(
        "cannot make the secret file {path}: {error}; make the folder writable, or name a secret \
         file in keys.secret_file",
        path = .path.display()
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl SecretFile {
    /// Reads a file, of which `group` says what a group of this process may do
    /// with it. Nobody else may.
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

    /// Writes one new secret, mode 0600, for a file that [`SecretDraft::keep`]
    /// makes.
    ///
    /// It is written under another name, forced to disk and then linked, so
    /// that nobody ever reads half a secret. A process that ends in the middle
    /// leaves at most a draft behind, which is in nobody's way.
    pub fn draft(path: &Path) -> Result<SecretDraft, SecretFileError> {
        let failed = |error| SecretFileError::Create { path: path.to_owned(), error };
        let draft = write_draft(path).map_err(failed)?;
        let text = Self::read(&draft, Group::Writes)?.text;
        Ok(SecretDraft { draft, file: Self { path: path.to_owned(), text } })
    }
}

/// A new secret that is not yet in its place.
pub struct SecretDraft {
    draft: PathBuf,
    file: SecretFile,
}

impl SecretDraft {
    /// What it will hold.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.file.text
    }

    /// Puts it in its place. When another process has just made a file there, that
    /// one is read.
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
        // One that stays is in nobody's way.
        let _ = fs::remove_file(&self.draft);
    }
}

/// Writes a new secret to a file of its own beside `path`, and returns its name.
///
/// The name is random: the number of a process is 1 in every container, so that
/// two of them on one volume would meet.
fn write_draft(path: &Path) -> io::Result<PathBuf> {
    let secret = Secret::generate()?;
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let draft = path.with_extension(format!("{}.draft", hex::encode(random)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = writeln!(file, "{}", secret.as_str()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // What went wrong with the writing says more.
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(draft)
}

/// Forces the name of a new file to disk: keys that are minted next must not
/// outlive the secret when the power fails.
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
    fn a_file_that_was_made_is_private_usable_and_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystead.secret");
        let made = make(&path).unwrap();
        assert!(KeyRing::parse(&made.text, Prefix::default(), true).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(make(&path).unwrap().text, made.text);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_draft_that_a_crash_left_behind_blocks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keystead.secret");
        let of_this_process = format!("{}.draft", std::process::id());
        fs::write(path.with_extension(of_this_process), "half a sec").unwrap();
        assert!(make(&path).is_ok());
    }

    #[test]
    fn of_many_who_make_it_at_once_all_get_the_same() {
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
    fn the_error_names_the_file_and_the_remedy() {
        let error =
            SecretFile::read(Path::new("/nowhere/x"), Group::Reads).err().unwrap().to_string();
        assert!(error.contains("/nowhere/x") && error.contains("keys new-secret"), "{error}");
    }
}
