; SPDX-License-Identifier: MIT
; derive.scm [-- ORDER]: derivatives with respect to x of some expressions, simplified; and of one of them all up to the
; ORDER'th, 6 if it is not given. An expression is a number, a symbol, or a list: (+ a b), (- a b), (* a b), (/ a b),
; (^ a n) with a number n, (sin a), (cos a), (exp a), (log a).

(define (operator? x name) (and (pair? x) (eq? (car x) name)))

; --- expressions that are as simple as a look at their parts can make them ---

(define (sum a b)
  (cond ((and (number? a) (number? b)) (+ a b))
        ((eq? a 0) b)
        ((eq? b 0) a)
        ((number? b) (sum b a))
        ((and (number? a) (operator? b '+) (number? (cadr b))) (sum (+ a (cadr b)) (caddr b)))
        ((equal? a b) (product 2 a))
        (else (list '+ a b))))

(define (difference a b)
  (cond ((and (number? a) (number? b)) (- a b))
        ((eq? b 0) a)
        ((eq? a 0) (product -1 b))
        ((equal? a b) 0)
        (else (list '- a b))))

(define (product a b)
  (cond ((and (number? a) (number? b)) (* a b))
        ((or (eq? a 0) (eq? b 0)) 0)
        ((eq? a 1) b)
        ((eq? b 1) a)
        ((number? b) (product b a))
        ((and (operator? b '*) (number? (cadr b))) (product (product a (cadr b)) (caddr b)))
        ((and (operator? a '*) (number? (cadr a))) (product (cadr a) (product (caddr a) b)))
        ((equal? a b) (power a 2))
        ((and (operator? a '^) (equal? (cadr a) b)) (power b (+ (caddr a) 1)))
        ((and (operator? b '^) (equal? (cadr b) a)) (power a (+ (caddr b) 1)))
        (else (list '* a b))))

(define (ratio a b)
  (cond ((eq? a 0) 0)
        ((eq? b 1) a)
        ((equal? a b) 1)
        (else (list '/ a b))))

(define (power a n)
  (cond ((= n 0) 1)
        ((= n 1) a)
        ((operator? a '^) (power (cadr a) (* (caddr a) n)))
        (else (list '^ a n))))

; --- the rules ---

(define (derive x)
  (cond ((number? x) 0)
        ((symbol? x) (if (eq? x 'x) 1 0))
        (else ((cdr (assq (car x) rules)) x (cadr x) (derive (cadr x))))))

(define rules
  (list
   (cons '+ (lambda (x a da) (sum da (derive (caddr x)))))
   (cons '- (lambda (x a da) (difference da (derive (caddr x)))))
   (cons '* (lambda (x a da) (sum (product da (caddr x)) (product a (derive (caddr x))))))
   (cons '/ (lambda (x a da)
              (let ((b (caddr x)))
                (ratio (difference (product da b) (product a (derive b))) (power b 2)))))
   (cons '^ (lambda (x a da) (product (product (caddr x) (power a (- (caddr x) 1))) da)))
   (cons 'sin (lambda (x a da) (product da (list 'cos a))))
   (cons 'cos (lambda (x a da) (product (product -1 da) (list 'sin a))))
   (cons 'exp (lambda (x a da) (product da x)))
   (cons 'log (lambda (x a da) (ratio da a)))))

(define (size x)
  (if (pair? x) (+ 1 (fold + 0 (map size (cdr x)))) 1))

(for-each
 (lambda (x) (print x " -> " (derive x)))
 '(5
   x
   y
   (+ (* 3 (^ x 2)) (+ (* 2 x) 7))
   (* x (* x x))
   (^ (+ x 1) 5)
   (- (^ x 3) (/ 1 x))
   (/ (- x 1) (+ x 1))
   (sin (* 2 x))
   (* (exp x) (cos x))
   (log (+ 1 (^ x 2)))
   (exp (- 0 (^ x 2)))
   (* (sin x) (* (cos x) (exp (sin x))))
   (^ (/ (sin x) x) -2)))

(let loop ((order 1) (x '(exp (sin (^ x 2)))))
  (when (<= order (if (pair? (arguments)) (string->number (car (arguments))) 6))
    (let ((next (derive x)))
      (print "derivative " order " of (exp (sin (^ x 2))) has size " (size next))
      (loop (+ order 1) next))))
