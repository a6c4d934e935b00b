//! What verify found: counted, kept where it is no match, and written.

use jiff::Timestamp;
use serde::Serialize;

use super::judge::Finding;
use super::standing::Missing;
use crate::bucket_manifest::Spooled;
use crate::cli::VerifyArgs;
use crate::exit_status::Status;
use crate::model::comparison::{By, Counts, Verdict, name_of};
use crate::model::dump_metadata::DumpMetadata;
use crate::model::etag::ETag;
use crate::model::file_name::FileName;
use crate::model::left_out::{LeftOut, in_words};
use crate::model::manifest::ManifestHeader;
use crate::model::row_count::FileRows;
use crate::model::row_proof::RowProof;
use crate::model::units::ByteSize;
use crate::report::{Align, Report, Table, escape};

/// The format of the JSON report.
const FORMAT: u32 = 1;

/// The findings so far.
pub struct Outcome<'a> {
    report: &'a Report,
    uri: String,
    counts: Counts,
    proved_bytes: u64,
    /// How many files each kind of proof proved.
    proofs: [u64; By::ALL.len()],
    local_files: Option<usize>,
    /// Everything but the matches: what a person must look at.
    differing: Vec<Differing>,
    /// The rows of the files whose bytes were read.
    rows: Vec<(FileName, Option<FileRows>)>,
    /// Whether all bytes are read.
    is_deep: bool,
    /// What they prove.
    row_proof: Option<RowProof>,
    /// What the manifest says that mydumper left out.
    left_out: Vec<LeftOut>,
    /// JSON is written while it is found; this is what stands before the next file.
    json_separator: Option<&'static str>,
}

struct Differing {
    name: String,
    verdict: Verdict,
    why: String,
}

/// The head of the JSON report.
#[derive(Serialize)]
struct Head<'a> {
    format: u32,
    verified: Timestamp,
    version: &'static str,
    dump: &'a str,
    deep: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    manifest_sha256: Option<&'a str>,
    manifest: Option<&'a ManifestHeader>,
}

/// A file in the JSON report.
#[derive(Serialize)]
struct FileLine<'a> {
    name: &'a str,
    verdict: Verdict,
    /// What a match rests on; why it is none otherwise.
    because: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a ETag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<&'a str>,
    /// What the verdict at the upload rested on.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof_at_upload: Option<&'static str>,
}

impl<'a> Outcome<'a> {
    /// Nothing was found yet. With `--json` the report's head is written.
    pub async fn begin(
        args: &VerifyArgs,
        report: &'a Report,
        uri: String,
        manifest: Option<&Spooled>,
    ) -> anyhow::Result<Self> {
        if args.json {
            let head = Head {
                format: FORMAT,
                verified: Timestamp::now(),
                version: env!("CARGO_PKG_VERSION"),
                dump: &uri,
                deep: args.deep,
                directory: args.dir.as_ref().map(|dir| dir.display().to_string()),
                manifest_sha256: manifest.map(|manifest| manifest.sha256.as_str()),
                manifest: manifest.map(|manifest| &manifest.header),
            };
            let head = json(&head);
            // The files follow as one field more.
            report.data(&format!("{},\"files\":[", head.strip_suffix('}').unwrap_or(&head))).await?;
        }
        Ok(Self {
            report,
            uri,
            counts: Counts::default(),
            proved_bytes: 0,
            proofs: Default::default(),
            local_files: None,
            differing: Vec::new(),
            rows: Vec::new(),
            is_deep: args.deep,
            row_proof: None,
            left_out: manifest.and_then(|manifest| manifest.header.left_out.clone()).unwrap_or_default(),
            json_separator: args.json.then_some(""),
        })
    }

    /// How many local files there were to compare with.
    pub fn local_files(&mut self, count: usize) {
        self.local_files = Some(count).filter(|count| *count > 0);
    }

    /// One file more.
    pub async fn add(&mut self, finding: Finding) -> anyhow::Result<()> {
        let verdict = finding.judgement.verdict;
        let record = finding.record.as_ref();
        self.file(&FileLine {
            name: finding.name.as_str(),
            verdict,
            because: &finding.judgement.why,
            size: (verdict != Verdict::Missing).then_some(finding.size),
            etag: finding.etag.as_ref(),
            version_id: record.and_then(|record| record.version_id.as_deref()),
            proof_at_upload: record.map(name_of),
        })
        .await?;
        if verdict == Verdict::Match {
            self.proved_bytes += finding.size;
            for (count, by) in self.proofs.iter_mut().zip(By::ALL) {
                *count += u64::from(finding.judgement.by == Some(by));
            }
        }
        if self.is_deep {
            self.rows.push((finding.name, finding.rows));
        }
        Ok(())
    }

    /// Compares the rows in the files that were read with those that `metadata` counts.
    pub fn prove_rows(&mut self, metadata: &DumpMetadata) {
        let files = std::mem::take(&mut self.rows);
        self.row_proof = Some(RowProof::of(metadata, files.iter().map(|(name, rows)| (name.as_str(), *rows))));
    }

    /// Files that only `metadata` names.
    pub async fn missing(&mut self, missing: &[Missing]) -> anyhow::Result<()> {
        for Missing { name, why } in missing {
            let (verdict, because) = (Verdict::Missing, why.as_str());
            let unknown = (None, None, None, None);
            let (size, etag, version_id, proof_at_upload) = unknown;
            self.file(&FileLine { name, verdict, because, size, etag, version_id, proof_at_upload }).await?;
        }
        Ok(())
    }

    async fn file(&mut self, line: &FileLine<'_>) -> anyhow::Result<()> {
        self.counts.add(line.verdict);
        if let Some(separator) = self.json_separator {
            self.report.data(&format!("{separator}{}", json(line))).await?;
            self.json_separator = Some(",");
        }
        if line.verdict != Verdict::Match {
            let (name, why) = (line.name.to_owned(), line.because.to_owned());
            self.differing.push(Differing { name, verdict: line.verdict, why });
        }
        Ok(())
    }

    /// Writes what was found; status 0 if every file is proved.
    pub async fn finish(mut self) -> anyhow::Result<Status> {
        let rows_differ = self.row_proof.as_ref().is_some_and(|proof| proof.differing().count() > 0);
        let is_right = self.counts.is_all_match() && self.counts.total() > 0 && !rows_differ;
        let status = if is_right { Status::Success } else { Status::Difference };
        if self.json_separator.is_some() {
            self.json_tail(status).await?;
        } else {
            self.differing.sort_by(|one, two| one.name.cmp(&two.name));
            self.table().await?;
        }
        Ok(status)
    }

    async fn json_tail(&self, status: Status) -> anyhow::Result<()> {
        let counts = Verdict::ALL.map(|verdict| (verdict.as_str(), self.counts.of(verdict)));
        let counts: serde_json::Map<_, _> =
            counts.map(|(name, count)| (name.to_owned(), count.into())).into_iter().collect();
        let all_match = status == Status::Success;
        let tables = self.row_proof.as_ref().map(|proof| format!(",\"tables\":{}", json(&proof.tables)));
        let tables = tables.unwrap_or_default();
        self.report.data(&format!("]{tables},\"counts\":{},\"all_match\":{all_match}}}", json(&counts))).await
    }

    async fn table(&self) -> anyhow::Result<()> {
        let mut table = Table::new([("VERDICT", Align::Left), ("FILE", Align::Left), ("WHY", Align::Left)]);
        for Differing { name, verdict, why } in &self.differing {
            table.row([verdict.as_str(), name, why]);
        }
        for of_table in self.row_proof.iter().flat_map(RowProof::differing) {
            let name = format!("{}.{}", of_table.database, of_table.table);
            table.row([Verdict::Mismatch.as_str(), &name, &of_table.difference().unwrap_or_default()]);
        }
        self.report.table(&table).await?;
        let local = self.local_files.map_or_else(String::new, |count| format!("; {count} local files compared"));
        let bytes = ByteSize(self.proved_bytes).human();
        let uri = escape(&self.uri);
        self.report.data(&format!("{uri}: {} ({bytes} proved{local})", self.counts.in_words())).await?;
        let proofs = self.proofs.iter().zip(By::ALL).filter(|(count, _)| **count > 0);
        let proofs: Vec<_> = proofs.map(|(count, by)| format!("{count} {}", by.as_str())).collect();
        if !proofs.is_empty() {
            self.report.data(&format!("proved: {}", proofs.join(", "))).await?;
        }
        if let Some(proof) = &self.row_proof {
            self.report.data(&proof.in_words()).await?;
        }
        if !self.left_out.is_empty() {
            self.report
                .data(&format!("left out by mydumper, as it was asked to: {}", in_words(&self.left_out)))
                .await?;
        }
        Ok(())
    }
}

/// What is written here always has a JSON form.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
