//! The configurations that are shown.

use crate::harness::{
    envoy::{Version, example},
    keystead::Ran,
};

#[tokio::test]
async fn shown_configuration_is_accepted_by_both_versions() {
    for version in Version::BOTH {
        let mut command = version.command();
        command.args(["--mode", "validate", "-c"]).arg(example());
        let said = Ran::of(command, "").await;
        assert!(said.to_string().contains("OK"), "{version:?}: {said}");
        // A warning would tell of a field that is going away.
        let warned = said.stderr.lines().any(|line| line.contains("[warning]"));
        assert!(said.code == Some(0) && !warned, "{version:?}: {said}");
    }
}
