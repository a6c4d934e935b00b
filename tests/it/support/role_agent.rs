//! Who tells the credentials of a role: a container's agent, a machine's metadata service and STS, in one small server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::s3_server::{AccessKey, S3Server};

const KEY: &str = "ROLEKEY";
const SECRET: &str = "of-the-role-for-a-while";
const TOKEN: &str = "token";

/// What it does with a request.
#[derive(Clone, Copy)]
pub enum Mood {
    /// Tells credentials, which expired long ago: so each request needs new ones.
    Tells,
    /// Answers with this status.
    Answers(u16),
    /// Closes the connection without a word.
    Cuts,
}

struct State {
    mood: Mood,
    requests: Vec<String>,
}

/// Lives as long as the tests.
pub struct RoleAgent {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl RoleAgent {
    pub fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State { mood, requests: Vec::new() }));
        let its_state = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&its_state);
                // A client that is gone amid its request is no fault of the server's.
                thread::spawn(move || serve(stream, &state).unwrap_or_default());
            }
        });
        RoleAgent { address, state }
    }

    /// The store takes what it tells.
    pub fn is_trusted_by(&self, store: &S3Server) {
        store.set_key(AccessKey::new(KEY, SECRET).with_session_token(TOKEN));
    }

    pub fn become_one_that(&self, mood: Mood) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).mood = mood;
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first line of each request so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().expect("a length"),
            Some(_) => {}
            None => break,
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let first = first.trim_end().to_owned();
    let mood = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(first.clone());
        state.mood
    };
    let (status, body) = match mood {
        Mood::Cuts => return Ok(()),
        Mood::Answers(status) => (status, "not now".to_owned()),
        Mood::Tells => (200, told(&first)),
    };
    let head = format!("HTTP/1.1 {status} as asked\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    let mut stream = stream;
    // How long the token of the metadata service holds.
    write!(stream, "{head}x-aws-ec2-metadata-token-ttl-seconds: 600\r\n\r\n{body}")
}

fn told(first: &str) -> String {
    const EXPIRED: &str = "2016-02-25T06:03:31Z";
    match first.split(' ').collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token", _] => "token".to_owned(),
        ["GET", "/latest/meta-data/iam/security-credentials/", _] => "backup".to_owned(),
        ["POST", ..] => format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>\
             <Expiration>{EXPIRED}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
             </AssumeRoleWithWebIdentityResponse>"
        ),
        _ => format!(
            r#"{{"Code":"Success","AccessKeyId":"{KEY}","SecretAccessKey":"{SECRET}","Token":"{TOKEN}","Expiration":"{EXPIRED}"}}"#
        ),
    }
}
