use std::path::Path;

use super::*;

fn verification(text: &str) -> (SslMode, Verification) {
    let target = read(text).unwrap();
    (target.driver.get_ssl_mode(), target.verification)
}

fn file(path: &str) -> Roots {
    Roots::File(Path::new(path).to_owned())
}

#[test]
fn sslmode_matches_libpq() {
    use SslMode::{Disable, Prefer, Require};
    let ca = || file("/etc/ca.pem");
    for (options, expected) in [
        (&[][..], (Prefer, Verification::None)),
        (&["sslmode=disable"], (Disable, Verification::None)),
        (&["sslmode=prefer", "sslrootcert=/etc/ca.pem"], (Prefer, Verification::None)),
        (&["sslmode=require"], (Require, Verification::None)),
        (&["sslmode=require", "sslrootcert=/etc/ca.pem"], (Require, Verification::Chain(ca()))),
        (&["sslmode=verify-ca"], (Require, Verification::Chain(Roots::System))),
        (
            &["sslrootcert=/etc/ca.pem", "sslmode=verify-full"],
            (Require, Verification::ChainAndName(ca())),
        ),
        (
            &["sslmode=verify-full", "sslrootcert=system"],
            (Require, Verification::ChainAndName(Roots::System)),
        ),
    ] {
        let url = format!("postgres://u:p@h/d?application_name=a&{}", options.join("&"));
        assert_eq!(verification(&url), expected, "{url}");
    }
}

#[test]
fn all_other_options_reach_the_driver() {
    let target = read(
        "postgresql://u:p%40%3F@h1:1,h2:2/db?sslmode=verify-full&target_session_attrs=read-write\
         &sslrootcert=%2Fmy%20ca.pem&application_name=app",
    )
    .unwrap();
    assert_eq!(target.driver.get_hosts().len(), 2);
    assert_eq!(target.driver.get_ports(), [1, 2]);
    assert_eq!(target.driver.get_password(), Some(&b"p@?"[..]));
    assert_eq!(target.driver.get_application_name(), Some("app"));
    assert_eq!(target.verification, Verification::ChainAndName(file("/my ca.pem")));
}

#[test]
fn question_mark_in_the_password_does_not_start_the_options() {
    let target = read("postgres://u:p?sslmode=disable&x@h/db").unwrap();
    assert_eq!(target.driver.get_password(), Some(&b"p?sslmode=disable&x"[..]));
    assert_eq!(target.driver.get_ssl_mode(), SslMode::Prefer);
}

#[test]
fn sslmode_is_ignored_over_a_unix_socket() {
    assert_eq!(
        verification("postgres://u@%2Frun%2Fpostgresql/db?sslmode=require"),
        (SslMode::Disable, Verification::None)
    );
}

#[test]
fn errors_name_the_problem_and_never_show_the_password() {
    for (text, says) in [
        ("postgres://u:s3cret@h/d?sslmode=allow", "sslmode"),
        ("postgres://u:s3cret@h:port/d", "`port`"),
        ("postgres://u:s3cret@h/d?sslcert=/x", "`sslcert` is not supported"),
        ("postgres://u:s3cret@/d", "no host"),
        ("postgres://u:x@s3cret/d?s3cret=1", "well-formed"),
        ("postgres://u:s3cret@h/d?sslmode=%4", "well-formed"),
        ("postgres://u:s3cret@h:1,i:2/d?port=3", "equally many"),
        ("host=h password=s3cret", "well-formed"),
        ("s3cret", "well-formed"),
        ("", "well-formed"),
    ] {
        let error = read(text).err().unwrap();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(says), "{text}: {shown}");
        assert!(!shown.contains("s3cret"), "{text}: {shown}");
    }
}
