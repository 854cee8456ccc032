//! `causewayctl provider`: the life of a provider, through the operator API.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use causeway_proto::directory::v1::{
    ListProviders, Provider, ProviderSettings, ProviderStatus, RegisterProvider, SetProviderStatus, UpdateProvider,
};
use causeway_proto::wire::v1::ProviderKind;
use clap::{Args, Subcommand, ValueEnum};

use crate::chat::clean;
use crate::operator::{Operator, OperatorArguments};

const PAGE: u32 = 100;
/// More are not listed: whoever answers may not be what it seems.
const MAX_PROVIDERS: usize = 100_000;

/// What to do, and where.
#[derive(Debug, Args)]
pub(crate) struct ProviderArguments {
    #[command(flatten)]
    operator: OperatorArguments,
    #[command(subcommand)]
    command: ProviderCommand,
}

#[derive(Debug, Subcommand)]
enum ProviderCommand {
    /// Admit a provider: its discovery document and keys are fetched and checked at once.
    Register(Settings),
    /// Replace the settings of a provider.
    Update(Settings),
    /// List all providers.
    List,
    /// End its sessions and refuse its tokens.
    Suspend(Named),
    /// Bring a suspended provider back.
    Resume(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Registered domain of the provider.
    #[arg(value_name = "DOMAIN")]
    domain: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// The operator's own messenger.
    Home,
    /// Everybody else.
    ThirdParty,
}

#[derive(Debug, Args)]
struct Settings {
    /// Registered domain; users are local@DOMAIN.
    #[arg(long)]
    domain: String,
    /// Name for people.
    #[arg(long, value_name = "TEXT")]
    name: String,
    /// home or third-party.
    #[arg(long, default_value = "third-party")]
    kind: Kind,
    /// OIDC issuer, exactly as tokens name it.
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Host, or host:port, that discovery, keys, media and webhooks may live on; repeat for more.
    #[arg(long = "host", required = true, value_name = "HOST")]
    hosts: Vec<String>,
    /// URL prefix under which the provider serves media; repeat for more.
    #[arg(long = "media-prefix", value_name = "URL")]
    media_prefixes: Vec<String>,
    /// Where push webhooks go.
    #[arg(long, requires = "webhook_secret_file", value_name = "URL")]
    webhook_url: Option<String>,
    /// File with the Standard Webhooks secret (whsec_...).
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
}

impl Settings {
    fn read(self) -> anyhow::Result<ProviderSettings> {
        let webhook_secret = match &self.webhook_secret_file {
            None => String::new(),
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("the webhook secret file {} cannot be read", file.display()))?
                .trim()
                .to_owned(),
        };
        let kind = match self.kind {
            Kind::Home => ProviderKind::Home,
            Kind::ThirdParty => ProviderKind::ThirdParty,
        };
        Ok(ProviderSettings {
            domain: self.domain,
            display_name: self.name,
            kind: kind.into(),
            issuer: self.issuer,
            hosts: self.hosts,
            media_prefixes: self.media_prefixes,
            webhook_url: self.webhook_url.unwrap_or_default(),
            webhook_secret,
        })
    }
}

/// Carries the command out and prints what the registry then holds.
pub(crate) async fn run(arguments: ProviderArguments) -> anyhow::Result<()> {
    let mut operator = Operator::connect(arguments.operator).await?;
    let provider = match arguments.command {
        ProviderCommand::List => return list(&mut operator).await,
        ProviderCommand::Register(settings) => {
            let request = operator.request(RegisterProvider { settings: Some(settings.read()?) });
            operator.client().register(request).await
        }
        ProviderCommand::Update(settings) => {
            let request = operator.request(UpdateProvider { settings: Some(settings.read()?) });
            operator.client().update(request).await
        }
        ProviderCommand::Suspend(Named { domain }) => {
            set_status(&mut operator, domain, ProviderStatus::Suspended).await
        }
        ProviderCommand::Resume(Named { domain }) => set_status(&mut operator, domain, ProviderStatus::Live).await,
    };
    match provider {
        Ok(answer) => print(&answer.into_inner()),
        Err(status) => Err(operator.explain(&status)),
    }
}

async fn set_status(
    operator: &mut Operator,
    domain: String,
    status: ProviderStatus,
) -> Result<tonic::Response<Provider>, tonic::Status> {
    let request = operator.request(SetProviderStatus { domain, status: status.into() });
    operator.client().set_status(request).await
}

async fn list(operator: &mut Operator) -> anyhow::Result<()> {
    all(operator).await?.iter().try_for_each(print)
}

/// All that are registered.
pub(crate) async fn all(operator: &mut Operator) -> anyhow::Result<Vec<Provider>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    while all.len() < MAX_PROVIDERS {
        let request = operator.request(ListProviders { after: after.clone(), limit: PAGE });
        let page = match operator.client().list(request).await {
            Ok(page) => page.into_inner().providers,
            Err(status) => return Err(operator.explain(&status)),
        };
        match page.last().and_then(|last| last.settings.as_ref()) {
            Some(last) if page.len() == PAGE as usize => after.clone_from(&last.domain),
            _ => {
                all.extend(page);
                return Ok(all);
            }
        }
        all.extend(page);
    }
    Ok(all)
}

/// One line a provider: domain, kind, status, number of keys, and what is wrong with them if anything is.
fn print(provider: &Provider) -> anyhow::Result<()> {
    let Some(settings) = &provider.settings else { return Ok(()) };
    let kind = match settings.kind() {
        ProviderKind::Home => "home",
        ProviderKind::ThirdParty | ProviderKind::Unspecified => "third-party",
    };
    let status = match provider.status() {
        ProviderStatus::Live => "live",
        ProviderStatus::Suspended | ProviderStatus::Unspecified => "suspended",
    };
    let (domain, problem) = (clean(&settings.domain), clean(&provider.keys_error));
    let keys = provider.key_count;
    let mut out = std::io::stdout();
    writeln!(out, "{domain}\t{kind}\t{status}\t{keys} keys\t{problem}").context("write to standard output")
}
