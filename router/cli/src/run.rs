// SPDX-License-Identifier: Apache-2.0
//! From arguments to exit code.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{
    BgpCommand, Cli, Command, ConfigCommand, DrainArgs, Global, PolicyCommand, StatusArgs,
};
use crate::commands;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline;
use crate::output::{Look, Options, View, now_unix_ns, render};

/// How often `status --wait` looks.
const WAIT_INTERVAL: Duration = Duration::from_secs(1);

/// How long a drain may take beyond its wait: peers may take half a minute to be told.
const DRAIN_MARGIN: Duration = Duration::from_secs(45);

/// What a command comes to: the view and how the process ends after it is shown.
pub(crate) type Outcome = (View, Exit);

/// Runs the command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let usage = !matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return ExitCode::from(if usage { Exit::Usage } else { Exit::Ok } as u8);
        }
    };
    let errors = Look::detect(cli.global.color, true);
    match dispatch(&cli) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            eprint_quietly(&failure.render(&errors));
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    let printer = Printer::new(&cli.global);
    match &cli.command {
        Command::Completion { shell } => printer.print(&offline::completion(*shell)),
        Command::Man { directory } => {
            offline::man(directory)?;
            Ok(Exit::Ok)
        }
        Command::Explain { code } => printer.show((offline::explain(code.as_deref())?, Exit::Ok)),
        Command::Bgp(BgpCommand::Decode(args)) => printer.show(offline::decode(&args.input)?),
        Command::Bgp(BgpCommand::Policy(PolicyCommand::Test(args))) if !args.file.is_empty() => {
            printer.show(commands::bgp_policy::test_files(args)?)
        }
        Command::Config(ConfigCommand::Check { paths }) => {
            printer.show(offline::check(paths, &printer.look)?)
        }
        Command::Config(ConfigCommand::Show { default: true, .. }) => {
            printer.print(&offline::default_settings())
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| Failure::usage("cannot start").why(e.to_string()))?;
            runtime.block_on(online(command, &cli.global, &printer))
        }
    }
}

/// Commands that ask the daemon: once, until it is healthy, or for ever.
async fn online(command: &Command, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    if let (Command::Status(args), None) = (command, global.watch)
        && args.wait
    {
        return wait(args, command, global, printer).await;
    }
    if let (Command::Drain(args), None) = (command, global.watch)
        && !args.detach
    {
        return drain(args, global, printer).await;
    }
    let Some(interval) = global.watch else {
        return printer.show(ask(command, global).await?);
    };
    let mut first = true;
    loop {
        match ask(command, global).await {
            Ok(outcome) => {
                printer.clear()?;
                printer.show(outcome)?;
            }
            // A daemon that is being restarted comes back; anything else, or a daemon that was
            // never there, does not get better by repeating.
            Err(failure) if !first && failure.exit == Exit::Unreachable => {
                eprint_quietly(&failure.render(&printer.errors));
            }
            Err(failure) => return Err(failure),
        }
        first = false;
        tokio::time::sleep(interval).await;
    }
}

async fn ask(command: &Command, global: &Global) -> Result<Outcome, Failure> {
    let asked = async {
        // `version` has half an answer without a daemon, every other command none.
        if matches!(command, Command::Version) {
            let connection = router_api::connect(&global.socket).await;
            return commands::version::fetch(connection.ok()).await;
        }
        let connection = router_api::connect(&global.socket).await?;
        commands::fetch(command, &connection, now_unix_ns()).await
    };
    match tokio::time::timeout(global.timeout, asked).await {
        Ok(result) => result,
        Err(_) => Err(
            Failure::new("CW0004", Exit::Timeout, "the daemon did not answer in time")
                .at(global.socket.display().to_string())
                .why(format!("no answer within {:?}", global.timeout))
                .fix("try again with a longer --timeout"),
        ),
    }
}

async fn wait(
    args: &StatusArgs,
    command: &Command,
    global: &Global,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let deadline = Instant::now() + args.wait_duration;
    loop {
        let outcome = ask(command, global).await;
        if let Ok((_, Exit::Ok)) = outcome {
            return printer.show(outcome?);
        }
        if Instant::now() + WAIT_INTERVAL > deadline {
            let late = Failure::new("CW0004", Exit::Timeout, "the node is not healthy yet")
                .why(format!("waited {:?}", args.wait_duration));
            return Err(match outcome {
                Ok(outcome) => {
                    printer.show(outcome)?;
                    late.fix("mend the issues shown, or wait longer with --wait-duration")
                }
                Err(failure) => late.why(format!(
                    "waited {:?}; last answer: {}",
                    args.wait_duration,
                    failure.why.unwrap_or(failure.what)
                )),
            });
        }
        tokio::time::sleep(WAIT_INTERVAL).await;
    }
}

/// Begins a drain and waits for its end. Whoever interrupts the wait does not end the drain.
async fn drain(args: &DrainArgs, global: &Global, printer: &Printer) -> Result<Exit, Failure> {
    let connection = router_api::connect(&global.socket).await?;
    let mut state = commands::drain::begin(&connection, args).await?;
    let deadline = Instant::now() + args.wait + DRAIN_MARGIN;
    while !commands::drain::is_done(&state) {
        if Instant::now() > deadline {
            printer.show((commands::drain::view(&state, now_unix_ns()), Exit::Ok))?;
            let late = Failure::new("CW0004", Exit::Timeout, "the drain is not done yet");
            return Err(late.fix("the daemon goes on with it; see `causeway status`"));
        }
        tokio::time::sleep(WAIT_INTERVAL).await;
        state = commands::drain::look(&connection).await?;
    }
    printer.show((commands::drain::view(&state, now_unix_ns()), Exit::Ok))
}

/// Where views go.
struct Printer {
    options: Options,
    look: Look,
    errors: Look,
    redraws: bool,
}

impl Printer {
    fn new(global: &Global) -> Printer {
        Printer {
            options: Options {
                format: global.output.clone(),
                no_headers: global.no_headers,
                sort_by: global.sort_by.clone(),
            },
            look: Look::detect(global.color, false),
            errors: Look::detect(global.color, true),
            redraws: global.watch.is_some() && io::stdout().is_terminal(),
        }
    }

    fn show(&self, (view, exit): Outcome) -> Result<Exit, Failure> {
        let text = render(&view, &self.options, &self.look)?;
        self.print(&text)?;
        if let View::Listing(listing) = &view
            && listing.items.is_empty()
        {
            eprint_quietly(&format!("{}\n", listing.empty));
        }
        for note in view.notes() {
            eprint_quietly(&format!("{note}\n"));
        }
        Ok(exit)
    }

    /// Writes to standard output. A reader that has gone away (`| head`) ends the process without
    /// a word, as it ends others by SIGPIPE.
    fn print(&self, text: &str) -> Result<Exit, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Ok(()) => Ok(Exit::Ok),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(e) => Err(
                Failure::new("CW0010", Exit::Refused, "cannot write to standard output")
                    .why(e.to_string()),
            ),
        }
    }

    fn clear(&self) -> Result<Exit, Failure> {
        // Home, then erase to the end of the screen: less flicker than erasing first.
        self.print(if self.redraws { "\x1b[H\x1b[2J" } else { "" })
    }
}

/// Standard error may be closed; that is no reason to fail.
fn eprint_quietly(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
