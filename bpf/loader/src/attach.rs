// SPDX-License-Identifier: Apache-2.0
//! Attaching programs to devices.
