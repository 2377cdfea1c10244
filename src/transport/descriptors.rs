//! What reflection says of `keystead.v1.Authz`, whose methods are served on two
//! listeners.

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet, source_code_info::Location};

use super::{ReflectionError, pb};

/// The field of a `FileDescriptorProto` that holds its services, and the field of
/// a `ServiceDescriptorProto` that holds its methods: how comments are attached
/// to them.
const SERVICES: i32 = 6;
const METHODS: i32 = 2;

/// All descriptors of `proto/`, but for one method of a service.
pub(super) fn without(method: &str) -> Result<FileDescriptorSet, ReflectionError> {
    let decoded = FileDescriptorSet::decode(pb::DESCRIPTORS);
    let mut all = decoded.map_err(tonic_reflection::server::Error::from)?;
    for file in &mut all.file {
        remove(file, method);
    }
    Ok(all)
}

fn remove(file: &mut FileDescriptorProto, method: &str) {
    for (service, number) in file.service.iter_mut().zip(0..) {
        let position = service.method.iter().position(|it| it.name() == method);
        let Some(position) = position else { continue };
        service.method.remove(position);
        let Some(source) = &mut file.source_code_info else { continue };
        source.location.retain_mut(|location| stays(location, number, position));
    }
}

/// Whether a comment is of something that stays. Those of later methods move up.
fn stays(location: &mut Location, service: i32, removed: usize) -> bool {
    let [SERVICES, of, METHODS, method, ..] = &mut location.path[..] else {
        return true;
    };
    let Ok(removed) = i32::try_from(removed) else { return true };
    if *of != service || *method < removed {
        return true;
    }
    let is_removed = *method == removed;
    *method -= 1;
    !is_removed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The methods with the first line of their comments.
    fn described(removed: &str) -> Vec<(String, String)> {
        let all = without(removed).unwrap();
        let file = all.file.iter().find(|file| !file.service.is_empty()).unwrap();
        let locations = &file.source_code_info.as_ref().unwrap().location;
        let methods = file.service[0].method.iter().zip(0..);
        let described = methods.map(|(method, number)| {
            let path = [SERVICES, 0, METHODS, number];
            let mut comments = locations.iter().filter(|location| location.path == path);
            let comment = comments.next().unwrap().leading_comments().trim().to_owned();
            assert!(comments.next().is_none(), "{comment}");
            (method.name().to_owned(), comment)
        });
        described.collect()
    }

    #[test]
    fn a_method_that_is_removed_takes_its_comment_along_and_no_other() {
        for (removed, left) in [("Explain", "Check"), ("Check", "Explain")] {
            let [(name, comment)] = &described(removed)[..] else { panic!("{removed}") };
            assert_eq!(name, left);
            assert!(comment.starts_with(&format!("{left} says ")), "{comment}");
        }
        assert_eq!(described("Nothing").len(), 2);
    }
}
