fn main() {
    let directory = std::env::current_dir().unwrap_or_default();
    match mydumper2s3::cli::parse_from(std::env::args_os(), &directory) {
        Ok(command) => println!("{command:#?}"),
        Err(error) => error.exit(),
    }
}
