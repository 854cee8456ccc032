//! Recognises RSA moduli made by a generator of predictable primes (CVE-2017-15361, "ROCA"): whoever sees such a public
//! key can compute the private one.

/// The affected primes are `k * M + (65537^a mod M)` for a product M of small primes, so that both primes, and with
/// them the modulus, are powers of this number modulo each small prime.
const GENERATOR: u32 = 65537;

/// Small primes that divide M for all affected key lengths.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// True if `modulus` (big-endian) has the fingerprint; of good moduli fewer than one in a hundred million has it.
pub(super) fn is_affected(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| is_power_of_generator(remainder(modulus, *prime), *prime))
}

fn remainder(number: &[u8], divisor: u32) -> u32 {
    number.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % divisor)
}

fn is_power_of_generator(rest: u32, prime: u32) -> bool {
    let step = GENERATOR % prime;
    let mut power = 1;
    // The powers come round to 1 after at most prime - 1 steps.
    for _ in 1..prime {
        if power == rest {
            return true;
        }
        power = power * step % prime;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_the_generator_are_recognised() {
        // Modulo 13 the powers of 65537, that is of 4, are 1, 4, 3, 12, 9 and 10.
        let powers: Vec<u32> = (0..13).filter(|rest| is_power_of_generator(*rest, 13)).collect();
        assert_eq!(powers, [1, 3, 4, 9, 10, 12]);
        assert_eq!(remainder(&[1, 0, 1], 1000), 537);
        assert!(is_affected(&[1, 0, 1]));
        assert!(!is_affected(&[1, 0, 3]));
    }
}
