// SPDX-License-Identifier: Apache-2.0
//! Attaching programs to devices, and replacing what is attached without a gap.

use std::{io, path::Path};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use router_types::LinkIndex;

use crate::{
    AttachError, HookKind, Role,
    device::{self, Device},
    kernel,
    pins::{self, AttachmentPin},
};

/// Where our filter sits among the `clsact` filters of a device: before those without a priority
/// (49152 and up), behind anything an operator put first.
const CLSACT_PRIORITY: u16 = 1000;

/// A gateway's filters come before those of pods.
const fn clsact_priority(role: Role) -> u16 {
    match role {
        Role::FromPod | Role::ToPod | Role::FromFabric => CLSACT_PRIORITY,
        Role::EgressOut | Role::EgressBack => CLSACT_PRIORITY - 1,
    }
}

/// Our filter's handle at that priority.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// What [`attach`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was attached before.
    Attached,
    /// A program of another layout was replaced.
    Replaced,
    /// This process' program is there already.
    Unchanged,
}

/// Puts a program on a device, replacing in place what an earlier process of any layout attached.
/// `existing` are the pins for this role and device in every layout folder.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    wanted: &AttachmentPin,
    device: &Device,
    existing: &[AttachmentPin],
) -> Result<Outcome, AttachError> {
    for pin in existing {
        if !is_alive(pin) {
            continue;
        }
        let same_folder = pin.folder == wanted.folder;
        if same_folder && runs(pin, program) {
            return Ok(Outcome::Unchanged);
        }
        let moved = AttachmentPin {
            folder: wanted.folder.clone(),
            ..pin.clone()
        };
        replace(program, pin, &moved, &device.name)?;
        return Ok(if same_folder {
            Outcome::Unchanged
        } else {
            Outcome::Replaced
        });
    }
    // A pin whose device is gone may have the name this attachment needs.
    remove_pin(&wanted.path())?;
    match wanted.hook {
        HookKind::Tcx => attach_tcx(program, wanted, &device.name)?,
        HookKind::Clsact => attach_clsact(program, wanted, &device.name)?,
    }
    Ok(Outcome::Attached)
}

/// Replaces the program behind a pin by this process' one, in one step. Nothing happens when the
/// device is gone.
pub(crate) fn adopt(program: &mut SchedClassifier, pin: &AttachmentPin) -> Result<(), AttachError> {
    if !is_alive(pin) {
        return Ok(());
    }
    let name = device::name_of(pin.link).unwrap_or_else(|| pin.link.0.to_string());
    replace(program, pin, pin, &name)
}

/// Takes a program off its device; a device that is gone took it along.
pub(crate) fn detach(pin: &AttachmentPin) -> Result<(), AttachError> {
    if pin.hook == HookKind::Clsact
        && let Some(name) = device::name_of(pin.link)
    {
        let filter = clsact_filter(pin, &name)?;
        if let Err(error) = aya::programs::links::Link::detach(filter) {
            // The operator, or the qdisc's removal, may have been first.
            tracing::debug!(device = name, role = %pin.role, %error, "the clsact filter was gone");
        }
    }
    if pin.hook == HookKind::Tcx
        && let Err(source) = kernel::detach_pinned_link(&pin.path())
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(pin_failed("detach", pin, source.into()));
    }
    remove_pin(&pin.path())
}

/// Whether the device of a pin still exists.
pub(crate) fn is_alive(pin: &AttachmentPin) -> bool {
    match pin.hook {
        HookKind::Tcx => {
            kernel::pinned_link_info(&pin.path()).is_ok_and(|info| info.link == Some(pin.link))
        }
        HookKind::Clsact => device::name_of(pin.link).is_some(),
    }
}

/// The program behind a pin, if its device still exists.
pub(crate) fn program_id(pin: &AttachmentPin) -> Option<u32> {
    match pin.hook {
        HookKind::Tcx => {
            let info = kernel::pinned_link_info(&pin.path()).ok()?;
            info.link.map(|_| info.program_id)
        }
        HookKind::Clsact => {
            device::name_of(pin.link)?;
            let program = SchedClassifier::from_pin(pin.path()).ok()?;
            program.info().ok().map(|info| info.id())
        }
    }
}

fn runs(pin: &AttachmentPin, program: &SchedClassifier) -> bool {
    program
        .info()
        .is_ok_and(|info| program_id(pin) == Some(info.id()))
}

fn attach_tcx(
    program: &mut SchedClassifier,
    pin: &AttachmentPin,
    device: &str,
) -> Result<(), AttachError> {
    let refused = |source| kernel_refused(pin, device, source);
    let order = match pin.role {
        Role::FromPod | Role::ToPod | Role::FromFabric => LinkOrder::default(),
        // What is no answer to a gateway's connection goes on to the program of pods.
        Role::EgressOut | Role::EgressBack => LinkOrder::first(),
    };
    let options = TcAttachOptions::TcxOrder(order);
    let id = program
        .attach_with_options(device, attach_type(pin.role), options)
        .map_err(|error| refused(error.into()))?;
    let link = program
        .take_link(id)
        .map_err(|error| refused(error.into()))?;
    let link: FdLink = link.try_into().map_err(|error| refused(Box::new(error)))?;
    link.pin(pin.path())
        .map_err(|error| pin_failed("write", pin, error.into()))?;
    Ok(())
}

fn attach_clsact(
    program: &mut SchedClassifier,
    pin: &AttachmentPin,
    device: &str,
) -> Result<(), AttachError> {
    let refused = |source| kernel_refused(pin, device, source);
    match qdisc_add_clsact(device) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(error) if is_already_there(&error) => {}
        Err(error) => return Err(refused(error.into())),
    }
    // A filter of ours without a pin is a process that died between the two: replace it.
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: clsact_priority(pin.role),
        handle: CLSACT_HANDLE,
        classid: None,
    });
    let attached = match program.attach_with_options(device, attach_type(pin.role), options) {
        Ok(id) => Ok(id),
        Err(_) => program.attach_to_link(clsact_filter(pin, device)?),
    };
    let id = attached.map_err(|error| refused(error.into()))?;
    keep_filter(program, id).map_err(refused)?;
    program
        .pin(pin.path())
        .map_err(|error| pin_failed("write", pin, error.into()))
}

fn replace(
    program: &mut SchedClassifier,
    from: &AttachmentPin,
    to: &AttachmentPin,
    device: &str,
) -> Result<(), AttachError> {
    let refused = |source| kernel_refused(from, device, source);
    let moves = from.folder != to.folder;
    match from.hook {
        HookKind::Tcx => {
            let pinned = PinnedLink::from_pin(from.path())
                .map_err(|error| pin_failed("open", from, error.into()))?;
            let link = FdLink::from(pinned)
                .try_into()
                .map_err(|error| refused(Box::new(error)))?;
            let id = program
                .attach_to_link(link)
                .map_err(|error| refused(error.into()))?;
            let link = program
                .take_link(id)
                .map_err(|error| refused(error.into()))?;
            if moves {
                let link: FdLink = link.try_into().map_err(|error| refused(Box::new(error)))?;
                remove_pin(&to.path())?;
                link.pin(to.path())
                    .map_err(|error| pin_failed("write", to, error.into()))?;
                remove_pin(&from.path())?;
            }
        }
        HookKind::Clsact => {
            match program.attach_to_link(clsact_filter(from, device)?) {
                Ok(id) => keep_filter(program, id).map_err(refused)?,
                // The filter or its qdisc was removed by somebody, or the device is a new one.
                Err(_) => {
                    remove_pin(&from.path())?;
                    return attach_clsact(program, to, device);
                }
            }
            remove_pin(&from.path())?;
            remove_pin(&to.path())?;
            program
                .pin(to.path())
                .map_err(|error| pin_failed("write", to, error.into()))?;
        }
    }
    Ok(())
}

/// Takes the filter out of aya's hands, which would remove it when the program is dropped.
fn keep_filter(
    program: &mut SchedClassifier,
    id: aya::programs::tc::SchedClassifierLinkId,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let link = program.take_link(id)?;
    std::mem::forget(link);
    Ok(())
}

fn clsact_filter(pin: &AttachmentPin, device: &str) -> Result<SchedClassifierLink, AttachError> {
    SchedClassifierLink::attached(
        device,
        attach_type(pin.role),
        clsact_priority(pin.role),
        CLSACT_HANDLE,
        None,
    )
    .map_err(|_| AttachError::NoDevice {
        ifindex: pin.link.0,
    })
}

fn attach_type(role: Role) -> TcAttachType {
    match role {
        Role::FromPod | Role::FromFabric | Role::EgressOut | Role::EgressBack => {
            TcAttachType::Ingress
        }
        Role::ToPod => TcAttachType::Egress,
    }
}

/// `EEXIST` behind a netlink error: the qdisc is there.
fn is_already_there(error: &TcError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return io.raw_os_error() == Some(libc::EEXIST);
        }
        cause = current.source();
    }
    error.to_string().contains("File exists")
}

fn remove_pin(path: &Path) -> Result<(), AttachError> {
    pins::remove_file(path).map_err(|error| AttachError::Pin {
        action: "remove",
        path: path.to_owned(),
        source: error.into(),
    })
}

fn kernel_refused(
    pin: &AttachmentPin,
    device: &str,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> AttachError {
    AttachError::Kernel {
        role: pin.role,
        name: device.to_owned(),
        hook: pin.hook,
        source,
    }
}

fn pin_failed(
    action: &'static str,
    pin: &AttachmentPin,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> AttachError {
    AttachError::Pin {
        action,
        path: pin.path(),
        source,
    }
}

/// The attachments of a role and device among many pins.
pub(crate) fn matching(pins: &[AttachmentPin], role: Role, link: LinkIndex) -> Vec<AttachmentPin> {
    pins.iter()
        .filter(|pin| pin.role == role && pin.link == link)
        .cloned()
        .collect()
}
