//! What each object is to be, and whether it became that: some stores take a header for encryption, storage class or tags, answer
//! that all is well, and do nothing of it (seen with Garage 2.5 and, for `AES256`, Ceph 16).

use std::collections::BTreeSet;

use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption, StorageClass};

use super::error::{ErrorKind, StoreError};
use super::objects::unless_absent;
use super::store::Store;
use crate::model::destination::is_archive;
use crate::model::file_name::{MANIFEST, METADATA};

/// What each object is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectSettings {
    /// Such as `STANDARD_IA`; the bucket's default without.
    pub storage_class: Option<String>,
    /// `AES256`, `aws:kms` or `aws:kms:dsse`; the bucket's default without.
    pub encryption: Option<String>,
    /// The key for `aws:kms`.
    pub kms_key_id: Option<String>,
    /// A canned access control list, such as `bucket-owner-full-control`.
    pub acl: Option<String>,
    /// Keys and values.
    pub tags: Vec<(String, String)>,
}

/// What a look at an object says of what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsAsked {
    /// What is otherwise, in words: the option, and what the store shows.
    pub otherwise: Vec<String>,
    /// What may not be looked at.
    pub unseen: Vec<String>,
}

/// What the store shows of an object.
#[derive(Debug, Clone, Copy, Default)]
struct Shown<'a> {
    encryption: Option<&'a str>,
    kms_key_id: Option<&'a str>,
    storage_class: Option<&'a str>,
}

impl ObjectSettings {
    /// Tags as S3's header takes them: a URL query.
    pub(super) fn tagging(&self) -> Option<String> {
        let encode = |text: &str| {
            text.bytes().fold(String::new(), |mut encoded, byte| {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
                    _ => encoded.push_str(&format!("%{byte:02X}")),
                }
                encoded
            })
        };
        let tags: Vec<_> = self.tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        (!tags.is_empty()).then(|| tags.join("&"))
    }

    /// Of an object with that key. What a restart, `list` and `verify` read is never archived.
    fn class_of(&self, key: &str) -> Option<&str> {
        let is_read = key.rsplit('/').next().is_some_and(|name| matches!(name, MANIFEST | METADATA));
        self.storage_class.as_deref().filter(|class| !(is_read && is_archive(class)))
    }

    pub(super) fn storage_class(&self, key: &str) -> Option<StorageClass> {
        self.class_of(key).map(StorageClass::from)
    }

    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        self.encryption.as_deref().map(ServerSideEncryption::from)
    }

    pub(super) fn acl(&self) -> Option<ObjectCannedAcl> {
        self.acl.as_deref().map(ObjectCannedAcl::from)
    }

    fn compare(&self, key: &str, shown: Shown<'_>) -> Vec<String> {
        let mut otherwise = self.compare_encryption(shown.encryption, shown.kms_key_id);
        // No header means STANDARD (AWS, "HeadObject", x-amz-storage-class).
        let class = shown.storage_class.unwrap_or("STANDARD");
        if let Some(asked) = self.class_of(key).filter(|asked| *asked != class) {
            otherwise.push(unlike("--storage-class", asked, Some(class)));
        }
        otherwise
    }

    /// What an answer shows of the encryption, where it is not what was asked for.
    pub(super) fn compare_encryption(&self, encryption: Option<&str>, kms_key_id: Option<&str>) -> Vec<String> {
        let mut otherwise = Vec::new();
        if let Some(asked) = self.encryption.as_deref().filter(|asked| encryption != Some(asked)) {
            otherwise.push(unlike("--sse", asked, encryption));
        }
        if let (Some(asked), Some(there)) = (&self.kms_key_id, kms_key_id)
            && !is_same_key(asked, there)
        {
            otherwise.push(unlike("--sse-kms-key-id", asked, Some(there)));
        }
        otherwise
    }
}

fn unlike(option: &str, asked: &str, shown: Option<&str>) -> String {
    let shown = shown.map_or("nothing of it".to_owned(), |shown| format!("'{}'", shown.escape_debug()));
    format!("{option} {asked} was asked for, and the store shows {shown}")
}

/// The store names the key by its ARN, whatever it was asked by: `arn:aws:kms:REGION:ACCOUNT:key/ID`. An alias tells
/// nothing.
fn is_same_key(asked: &str, there: &str) -> bool {
    let id = |name: &str| name.rsplit_once("key/").map_or(name, |(_, id)| id).to_ascii_lowercase();
    asked.contains("alias/") || id(asked) == id(there)
}

impl Store {
    /// Whether anything was asked for.
    pub fn has_object_settings(&self) -> bool {
        self.0.objects != ObjectSettings::default()
    }

    /// Whether anything was asked for that no answer to a PUT shows.
    pub fn has_settings_beside_encryption(&self) -> bool {
        let ObjectSettings { storage_class, acl, tags, .. } = &self.0.objects;
        storage_class.is_some() || acl.is_some() || !tags.is_empty()
    }

    /// Looks whether that object, which is ours, is what was asked for. A request or two, and none where nothing was.
    pub async fn is_as_asked(&self, key: &str) -> Result<AsAsked, StoreError> {
        let settings = &self.0.objects;
        let mut found = AsAsked::default();
        // An ACL that cannot be had is refused, and what is shown of one may need a right of its own.
        let acl = settings.acl.clone();
        if *settings == (ObjectSettings { acl, ..ObjectSettings::default() }) {
            return Ok(found);
        }
        let request =
            async |client: aws_sdk_s3::Client| client.head_object().bucket(self.bucket()).key(key).send().await;
        let head = match unless_absent(self.persist("HeadObject", &self.uri(key), request).await) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(found),
            Err(error) if error.kind == ErrorKind::AccessDenied => {
                found.unseen.push("encryption and storage class (the right s3:GetObject is missing)".to_owned());
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        found.otherwise = settings.compare(
            key,
            Shown {
                encryption: head.server_side_encryption().map(|kind| kind.as_str()),
                kms_key_id: head.ssekms_key_id(),
                storage_class: head.storage_class().map(|class| class.as_str()),
            },
        );
        if !settings.tags.is_empty() {
            self.compare_tags(key, &mut found).await?;
        }
        Ok(found)
    }

    async fn compare_tags(&self, key: &str, found: &mut AsAsked) -> Result<(), StoreError> {
        let request =
            async |client: aws_sdk_s3::Client| client.get_object_tagging().bucket(self.bucket()).key(key).send().await;
        match self.persist("GetObjectTagging", &self.uri(key), request).await {
            Ok(answer) => {
                let there: BTreeSet<_> = answer.tag_set().iter().map(|tag| (tag.key(), tag.value())).collect();
                let missing = self.0.objects.tags.iter().find(|(key, value)| !there.contains(&(key, value)));
                found.otherwise.extend(missing.map(|(key, value)| {
                    format!("--tag {key}={value} was asked for, and the store shows nothing of it")
                }));
            }
            Err(error) if error.kind == ErrorKind::AccessDenied => {
                found.unseen.push("--tag (the right s3:GetObjectTagging is missing)".to_owned());
            }
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => {
                found.otherwise.push(format!("--tag was asked for, and the store does not know tags ({error})"))
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn otherwise(settings: &ObjectSettings, shown: Shown<'_>) -> String {
        settings.compare("a/shop.t.00000.sql", shown).join("; ")
    }

    #[test]
    fn what_the_store_shows_is_compared_with_what_was_asked_for() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(otherwise(&ObjectSettings::default(), Shown { encryption: Some("AES256"), ..Shown::default() }), "");
        let standard = ObjectSettings { storage_class: some("STANDARD"), ..ObjectSettings::default() };
        assert_eq!(otherwise(&standard, Shown::default()), "");
        let cold = ObjectSettings { storage_class: some("GLACIER"), ..ObjectSettings::default() };
        assert_eq!(
            otherwise(&cold, Shown::default()),
            "--storage-class GLACIER was asked for, and the store shows 'STANDARD'"
        );
        let kms =
            ObjectSettings { encryption: some("aws:kms"), kms_key_id: some("1234-AB"), ..ObjectSettings::default() };
        let arn = Shown {
            encryption: Some("aws:kms"),
            kms_key_id: Some("arn:aws:kms:eu-central-1:1:key/1234-ab"),
            ..Shown::default()
        };
        assert_eq!(otherwise(&kms, arn), "");
        assert_eq!(otherwise(&kms, Shown { kms_key_id: None, ..arn }), "");
        assert!(otherwise(&kms, Shown { kms_key_id: Some("other"), ..arn }).starts_with("--sse-kms-key-id 1234-AB"));
        let by_alias = ObjectSettings { kms_key_id: some("alias/backup"), ..kms.clone() };
        assert_eq!(otherwise(&by_alias, arn), "");
        assert_eq!(otherwise(&kms, Shown::default()), "--sse aws:kms was asked for, and the store shows nothing of it");
    }
}
