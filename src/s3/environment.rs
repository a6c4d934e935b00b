//! What the SDK reads from the environment and would take for more than it is meant for.

use std::ffi::OsString;

use crate::platform;

const ENDPOINT: &str = "AWS_ENDPOINT_URL";
const ENDPOINT_OF_S3: &str = "AWS_ENDPOINT_URL_S3";

/// Puts it right. To be called before there is any other thread.
pub fn prepare_environment() {
    for (name, value) in changes(|name| std::env::var_os(name).filter(|value| !value.is_empty())) {
        platform::set_variable(name, value.as_deref());
    }
}

/// `AWS_ENDPOINT_URL` names the store, and the SDK would ask it for a role's credentials, too: those come from STS, which
/// has `AWS_ENDPOINT_URL_STS`.
fn changes(get: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, Option<OsString>)> {
    let Some(endpoint) = get(ENDPOINT) else { return Vec::new() };
    let of_s3 = get(ENDPOINT_OF_S3).unwrap_or(endpoint);
    vec![(ENDPOINT_OF_S3, Some(of_s3)), (ENDPOINT, None)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(environment: &[(&str, &str)]) -> Vec<(&'static str, Option<String>)> {
        let get = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let text = |value: OsString| value.into_string().expect("UTF-8");
        changes(get).into_iter().map(|(name, value)| (name, value.map(text))).collect()
    }

    #[test]
    fn the_stores_endpoint_is_s3s_alone() {
        let store = Some("http://minio:9000".to_owned());
        assert_eq!(changed(&[("AWS_ENDPOINT_URL", "http://minio:9000")]), [(ENDPOINT_OF_S3, store), (ENDPOINT, None)]);
        let both = [("AWS_ENDPOINT_URL", "http://a"), ("AWS_ENDPOINT_URL_S3", "http://b")];
        assert_eq!(changed(&both), [(ENDPOINT_OF_S3, Some("http://b".to_owned())), (ENDPOINT, None)]);
        assert_eq!(changed(&[("AWS_ENDPOINT_URL_S3", "http://b"), ("AWS_ENDPOINT_URL_STS", "http://c")]), []);
    }
}
