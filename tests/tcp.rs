//! Ports of the platform for what speaks something else than HTTP.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::platform::shared;

/// Says its version and its dyno, and then again what it is told. Without a port it has nothing to do.
const ECHO: &str = r#"
import os, signal, socketserver

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(f"v1 {os.environ['DYNO']}\n".encode())
        for line in self.rfile:
            self.wfile.write(line)

if "PORT" not in os.environ:
    signal.pause()
socketserver.ThreadingTCPServer(("0.0.0.0", int(os.environ["PORT"])), Echo).serve_forever()
"#;

struct Talk(BufReader<TcpStream>);

impl Talk {
    fn with(port: u16) -> Result<Self, std::io::Error> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The next line; empty if there is none.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        // Whoever is cut off may see a reset.
        let _ = self.0.read_line(&mut line);
        line
    }

    fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(line.as_bytes()).expect("sent");
    }
}

#[test]
fn a_port_leads_to_a_process_type_and_is_never_shut_while_that_is_deployed() {
    let app = shared().working_copy("talk", "probe-app");
    app.write("echo.py", ECHO);
    app.write("Procfile", "web: python3 probe.py web\necho: python3 echo.py\n");
    app.commit("echo");
    shared().cli(&["create", &app.name]).expect_ok();
    app.push().expect_ok();
    app.cli(&["ps:scale", "echo=1"]).expect_ok();
    let added = app.cli(&["tcp:add", "--type", "echo"]).expect_ok();
    let route = app.json(&["tcp"])[0].clone();
    let port = u16::try_from(route["port"].as_u64().expect("a port")).expect("a port");
    added.expect_text(&[&format!("tcp://localhost:{port}"), "echo, $PORT"]);
    // Its dyno begins anew with a port, and whoever comes meanwhile waits.
    let mut early = Talk::with(port).expect("open");
    assert_eq!(early.hear(), "v1 echo.1\n");

    app.edit("echo.py", "v1", "v2");
    app.commit("second");
    let is_new = std::thread::scope(|scope| {
        let push = scope.spawn(|| app.push().expect_ok());
        let mut seen = Vec::new();
        while !seen.iter().any(|line: &String| line == "v2 echo.1\n") {
            let line = Talk::with(port).expect("never refused").hear();
            assert!(["v1 echo.1\n", "v2 echo.1\n"].contains(&line.as_str()), "{line:?} after {seen:?}");
            seen.push(line);
            seen.dedup();
        }
        push.join().expect("no panic");
        seen
    });
    assert_eq!(is_new, ["v1 echo.1\n", "v2 echo.1\n"]);
    early.say("still here\n");
    assert_eq!(early.hear(), "still here\n", "it has its drain time");
    drop(early);
    let line = format!("at=info protocol=tcp port={port} fwd=\"127.0.0.1\" dyno=echo.1 connect=");
    crate::until("its connections are in the log", || app.cli(&["logs", "-n", "1000"]).text.contains(&line));
    app.cli(&["tcp:remove", &port.to_string()]).expect_ok();
    crate::until("the port is shut", || Talk::with(port).is_err());
}
