//! What seeds have found, each under the promise that was broken.
