//! Hashes, signatures and base64, over the bytes of a VCL string.

use aws_lc_rs::{constant_time, digest, hmac, signature};

use super::builtins::text;
use super::values::{Value, bytes_of, text_of};

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub fn call(name: &str, values: &[Value]) -> Result<Value, String> {
    let first = text(values, 0);
    let bytes = bytes_of(&first);
    Ok(match name.trim_start_matches("digest.") {
        "base64" => Value::text(base64(&bytes, STANDARD, true)),
        "base64url" => Value::text(base64(&bytes, URL, true)),
        "base64url_nopad" => Value::text(base64(&bytes, URL, false)),
        "base64_decode" => Value::text(text_of(&base64_decoded(&first, false, true))),
        "base64url_decode" => Value::text(text_of(&base64_decoded(&first, true, true))),
        "base64url_nopad_decode" => Value::text(text_of(&base64_decoded(&first, true, false))),
        "secure_is_equal" => {
            let other = bytes_of(&text(values, 1));
            Value::Bool(constant_time::verify_slices_are_equal(&bytes, &other).is_ok())
        }
        "hash_md5" => Value::text(hexadecimal(&md5::compute(&bytes).0)),
        "rsa_verify" | "ecdsa_verify" => Value::Bool(is_signed(name, values)?),
        hash => match hash.strip_prefix("hmac_") {
            Some(kind) => Value::text(keyed(kind, &bytes, &bytes_of(&text(values, 1)))?),
            None => Value::text(hexadecimal(hashed(hash, &bytes)?.as_ref())),
        },
    })
}

fn hashed(name: &str, bytes: &[u8]) -> Result<digest::Digest, String> {
    let algorithm = match name {
        "hash_sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        "hash_sha256" => &digest::SHA256,
        "hash_sha384" => &digest::SHA384,
        "hash_sha512" => &digest::SHA512,
        _ => return Err("the interpreter does not have it".to_owned()),
    };
    Ok(digest::digest(algorithm, bytes))
}

/// Hexadecimal with a leading `0x`, as Fastly writes an HMAC, or base64.
fn keyed(kind: &str, key: &[u8], bytes: &[u8]) -> Result<String, String> {
    let algorithm = match kind.trim_end_matches("_base64") {
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hmac::HMAC_SHA256,
        "sha512" => hmac::HMAC_SHA512,
        _ => return Err("the interpreter does not have it".to_owned()),
    };
    let tag = hmac::sign(&hmac::Key::new(algorithm, key), bytes);
    if kind.ends_with("_base64") {
        return Ok(base64(tag.as_ref(), STANDARD, true));
    }
    Ok(format!("0x{}", hexadecimal(tag.as_ref())))
}

/// `(hash, key, payload, signature, …)`, the last a base64 variant, before it ECDSA's format.
fn is_signed(name: &str, values: &[Value]) -> Result<bool, String> {
    let is_rsa = name == "digest.rsa_verify";
    let (hash, payload) = (text(values, 0), bytes_of(&text(values, 2)));
    let (format, variant) =
        if is_rsa { (String::new(), text(values, 4)) } else { (text(values, 4), text(values, 5)) };
    let signature = text(values, 3);
    let signature = match variant.as_str() {
        "standard" => base64_decoded(&signature, false, true),
        "url" => base64_decoded(&signature, true, true),
        "" | "default" | "url_nopad" => base64_decoded(&signature, true, false),
        other => return Err(format!("{other} is no variant of base64")),
    };
    let algorithm: &dyn signature::VerificationAlgorithm = match (hash.as_str(), format.as_str()) {
        ("sha256" | "default", "") => &signature::RSA_PKCS1_2048_8192_SHA256,
        ("sha384", "") => &signature::RSA_PKCS1_2048_8192_SHA384,
        ("sha512", "") => &signature::RSA_PKCS1_2048_8192_SHA512,
        ("sha256", "jwt") => &signature::ECDSA_P256_SHA256_FIXED,
        ("sha256", "der") => &signature::ECDSA_P256_SHA256_ASN1,
        _ => return Err(format!("the interpreter does not have {hash} {format}")),
    };
    let pem = text(values, 1);
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = base64_decoded(&body, false, true);
    Ok(signature::UnparsedPublicKey::new(algorithm, key).verify(&payload, &signature).is_ok())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
/// Plain base64, for the keys and signatures of our own tests.
pub fn base64_standard(bytes: &[u8]) -> String {
    base64(bytes, STANDARD, true)
}

fn base64(bytes: &[u8], alphabet: &[u8; 64], pads: bool) -> String {
    let mut result = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            let letter = alphabet[(bits >> (18 - 6 * index) & 63) as usize];
            result.push(letter as char);
        }
        if pads {
            result.extend(std::iter::repeat_n('=', 3 - chunk.len()));
        }
    }
    result
}

/// As Fastly decodes: letters that are not in the alphabet are skipped; a `=` ends it where there is
/// padding, and is one more letter to skip where there is none.
pub fn base64_decoded(text: &str, is_url: bool, has_padding: bool) -> Vec<u8> {
    let alphabet = if is_url { URL } else { STANDARD };
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        if letter == b'=' && has_padding {
            break;
        }
        let Some(value) = alphabet.iter().position(|known| *known == letter) else { continue };
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}
