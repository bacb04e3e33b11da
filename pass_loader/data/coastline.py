"""The outline of land, for maps of places.

Source: Natural Earth, 1:110m countries, in the public domain (https://www.naturalearthdata.com). Borders between
countries cancel out, lines are simplified to 0.35 degrees (Douglas and Peucker, 1973) and rounded to quarters of a
degree; land and seas of less than 2 square degrees are left out.
"""

from __future__ import annotations

import base64
import zlib

import numpy as np


def coastlines() -> list[np.ndarray]:
    """Return closed lines, (N, 2) float64 each: longitude and latitude in degrees. A sea within land turns the other
    way round."""
    values = np.frombuffer(zlib.decompress(base64.b85decode(_LINES)), "<i2")
    found = []
    at = 0
    while at < len(values):
        count = int(values[at])
        found.append(values[at + 1 : at + 1 + 2 * count].reshape(count, 2) / 4)
        at += 1 + 2 * count
    return found


# Of each line, how many points it has, then they in quarters of a degree: int16, little-endian, packed by zlib.
_LINES = (
    "c-kFT2YAlc7k<x`gdp~g6(JF$B6ig*YE`KkHCnBrRkZ%vq7|z(YS-R-uUbVU#7b<jgA_r`h{T@1bN+8V-}8QF-1)or+%vk$4!wfydI`JqH1_HV9M"
    "F@9*E86sNjSu|lX?Tk^e%O&r0F=UuW(6U<EB2teSL~leSk-L4=>oR`UqJq1^#v&ftG}#mWUubPn<?BJA&tW1SuMgG~I`{8VAz@q<c9oisN=7hs7W"
    "_=^NdMm&6O*!nS|#gm|i3aZA?|Yj9UraSzLpOkC7uIH&V*Mi-LK#VMVE(>faox`3FC<2vUZJ*|@vtwV`H{LVhuqdmy?K$P~vKl&rK=}*|iw)Hv?E"
    "A>~*)4`Za%+sGSi*0{WKUDkUH|<CC!eH%$VfryfYcovI7MMYPmVSoi+8!&kEtXKfNShN4F<<L*-ul?0b+B10V276Gc?V;^hTsJ0Y0`7lU)GAat`R"
    ")jaDLl+<V*9sLUDs_cPQW0%1GC8JeTr3x3WCH^2lQ4;cMmKXJrv!Aw((UvywdjLMUqmQN?njx@AF4%ZzF!<bk?oR@dHG15;~hudS6mvrp~0btC=W"
    "((HehYCqde8({xh4?Aw%Ey}vsYU^mr?PFWUaq~HTwtZj|EzEwg66{^T1`)qlAV(FmK33RzSzeCL{0?2smovQ8|IpEdGdXK-Z}d}ptu5_|Hn+$6k-"
    "gFn?WNYURIO&|TFGu{1xwK|J4gPE*0DrwWT&;Uo!4gMTU(O0vMbu&E_2RH+LpSu)ODx)J!v1ip+kv@oZ~OMqnn8xl%wsG#@Rl-Y0-MeV)UNv(lpA"
    "?$iE=o+Fs3sIQ65=XQR#M<U0uBU6rQIl%(wxM~oIDO7K2Q@m|XkAy`AYhWE5Yt755E!!)glQQCkuQx9L$7CLEbbf#@|)Xr$3J&E3^N4u)6k*Gzxt"
    "fs?=!Dy)8qp^O4=Gqla*|(l{C%#2h{Q))fe~8duP+tE)h>k^Z9fuscgjk1Mx*Y+0SNZs!3TO=S>p?g@2I0GY<DDfgAj7+gyWU+~@$TWY_Ym8>r}*"
    "1@f=ylqmUwAcN`4h}E4^o!O?jS|idpPC+Dk@X?=t@MZexP?0DpM*F^qH&+Xs8;=udp>Jx4#!L!@W;)pHW*Ws*Lm-Mq}w&&w+P-yw?(CVF_erI(ja"
    "26*{pkXKkHdBtRw7byG5U#0#P>07U$m{&ynwSeT%!jhA;h!&J8nonwK9@1RWlxV3rqz&oEnp-~6ywZW_tvThFcgQ1yiQ#M;rU5dN{YDXEILA;eL="
    "=<XwWN&I5;B!*Oyc}Axz0?EnWy<>G3g@Cvy5Zca^AHZ6HWb2&KJ#fcWHLns##?Xu}m|`Y=z8Fr7w7k@%obYpFunzpNh$vg6VpTwsHkU-C+#IUJSw"
    "k{D33)9>>rfC-5y2&<z)f>*$S}_zJ1`0_pf1chH7ti7RM~GiZp@sLQc6u^AEAh$>i%I#`Dfu>kEb7hhr~$4<nL7*9;VFBr>pMqnT&bM8s#f@$c;K"
    "F!&;DaX{u2F|k%m9Pcna2(-8dBh?&mf*Q9K$^|NU0aA-<geONoVR6&v&GnJ<FVN$VKuSXMq-Zrfmx)JZ4iF9{)n_*7-XF=*jnLdYmR}|6ho~UMpz"
    "w8w^|%m2|J117J;Ky1E+}dRuxHBjq8Ntfd%8Og(5pjAukGXKe<sD*@%~xm%GZ3WO}#bR)V{!fIU{3GgZeft4&%LvDTPqjTrlkJN**J><66Yt}b(T"
    "mn@R2j6{l!<(Eyy3!4Z(OhpK0AnYBcp#rA!G^UbHraXoxJOcGFl(#S#tucf*G6L=KJAT4%l!jtB|HlyH$WP(P|HV1R6C)`NBOOT152W8=4sU!u=|"
    "c3yQVbw|#tKAYIYwhO?`<`EEXT@szjYk(59KJ#LNrJ1=6yyHJGis$oN*iPb~8rt=0=kr$-bl6HVQkrt6f}k8|UA~b=Q(EM?c~_-s-nlhHuD!N%}P"
    "w(<&CDGxgoLN*Bzg)y<?l16{dFC!zy)@fml~ihWvP6)k2XKH$7Hv6a}4YFx82X#_U$oK~~_KdhvMEdk>oEpsWYb`h<2AsX>3>T`{HM1Asgxpp|`E"
    "Qj?x=S?Wh?<qoy%uYEw=gGu<8Z8f)$9tNFbmG2E!EKw4f5~65IlR+(q{~Rx(<c6=eQd;Q+k`jFCZ5_JJhZ*U0qPF0?GUXh4!(SOnQ7@cagx?`4kd"
    "8`!F+usah3L#!u{Ogeo}b<HxNo)SzIQ6k>7Zk-<*ghNWv%N+woO?#@E^&w|Q1~cxEX)#}uCHeV*fe%4vLs4{0YEq>p*7=^XQf{a<k0Yf=wA;UnFU"
    "MLtJnX-B>toP2~gJgaAD!Eqnq0nad%=ar1w^bR$-pQ>CpjPsVlJru=V6y#d@@RIN3HTUkMHgd|xC@5V}SiVM4>5pO(i6SzH@(>h|5hx@}kV{q|n="
    "FRE%;ox{$d4zT!12>zy!lKr1HQ75@>24P;3un*RW`BD7WVxc0kWBMY(yT30=**F+>RVXcFNf#5qae@ae-~A$R`=3Pv6l3@|b(eBe^6$|FcU036Mg"
    "PO^Q+~NnNm%B7!AIN=R|iB9!w<C|iq(KY4$tAUUO+<R<-3pHD)hAmu<Q&HfcQM|qB_#PJn5qB0TAnW|H6LfVisG~}qxQdT;0R9B9eCJ{1Qs>u?mA"
    "*)H35$mO@Y@j|ys>l(}c9^qmmoPcVaq&_{PI8Vku9!ypmOF5+wD`DEq$MT51xjvLLJGR#Qi-TYeS`~^_AW@iVcQU5m@7gQls{YnSwyUKd1al;C#$"
    "Jj>k3IMaf<RO=OgjX$qDxsC)_K<x!2g?USN&Oz;gE(b6h%Rxks2pI@aC8M8`<&uH#Raj4|#Cbx9cEE@8Mkk6+z640fk5z#T_FcNIUno8<3McNdf0"
    "Gfd^&6N&Mhe>mrkBpu+M<2%mX$EBgGOC=tn1LaRC*K!X~jPnP(%LsFc2<JN0xJGq%8WHXU<^9x0A<%6^0k;mh-3DZFtC86)hti@{7QoL<gO8hl*D"
    "?+-Wg6bl`d-N_JdxRWM(cY-3r&&vxJN6zBg^qG$6O>X$UO2hagA1bll||Jzt6ELoZ||u_`3XwyE2Rzf?M(%=|GO}Prg5r_$p3GXGBYT?2<OvN$eo"
    "MMLJ-$e1cWd65FH>{*mfLC9IHAST1F;P|9PjRK_%^g6V9VLQIr0m`qHS;+QW5uta>>&lfW#8{3Ou9LN4CB`{vz!zgKlNU4XxQlDsse%wQE;ybR}h"
    "3j|XK0cFHXeJHOfPLyo7^+K2L`Z3bP!6VdC?cOBzjWja>O|U^FRmM3a8Ep^SHF#3^jLlAoqE%weNXT91N~_!EiPdi%)F_L)X>sWjeK3wMp}w_RB7"
    "f;C74H*lvd<FWuH!L|3ZsOALcxLm=pCNzGdFjlX*}_=0LTX8<l5UUFJ<?wTOhUZ#eU*miWs2q_Zj7*&DRCm-y5&P|u#AvKcCwuY_3^DR0@NtOZB~"
    "%PkR>SE^YdDQEemj1?dXOQ;1>Uqphe1m#jvz}}N=7A_ApTyAJpd8XARMQccs)+FASS6WxzXg$f$`jXiii?4kof!2)kH<jwvTv}0XM7goGke=2`rV"
    "|^;52tQ9`>baBGLG9v{sj31@|&!IL=l^<Hc>;iTUA+ORmg|S7OTkd6=kc1$y#Egg;EZYrB+5(S&%FsR#|cO52UV$%q2gM{49RkD&jB8BO@%A4CFa"
    "XLv3%PcJwysSZ|$f^w#P@Z#}V5=X#rUfwxm9dNI1fi`MO4tgiJA=rr#j`ySRY-f>;#9o3!QN!{U{(HQTn#**Ij5;aIKXidGO_4K^<)wB8|X-~bVU"
    "+GmHrk8cLCh0u#>&Wk7zgWr%Y=5Bt>Jv@Yhk8#R^Zya0C;C)<%+tb_iS?bcBCO!DQ1)f@mc?GE*mHfQ8JdZen?I|z09IqhHE-()Jw{y8!~De)2dI"
    "tJ+_qf{+E%S)QQFRSYFAcblPp&Mv;*4T_7jJ6fF0Hec0zaAS>0zBbiZBHJ)CzxE4u`{s)=?}Z`gIc#p*7dRh>uKD3@TB972@GEv-&k2e(<7-(|Ia"
    "i&g(^9gcfC1`l-}>1Djq>v+lR{E0qC2DA6awD1g80jbRT?~uR6YT-KNYqaiU4V8Pex%>Koq-zU#qMeCu@<Mx&4&&I#r1Rvpu92r2FE8~Z?erRTY4"
    "Th%xn~;aUT9JGMnl|FZ9=qg8QRu8)UREden&dm-PQ%}mTqv@b%nd6v)u)q<PwPEI?Wx@`7Tb!xC1)O#pp`6Sx>nQ#B2@s{=){X>iw-*nU~a{hp9q"
    "OQAKLdbJV6>5w)cpJxL?fr-%7~uk?L-sVZ(VD!B0|<Hn(c8_l|83^5Mb-B{#u%mv&K_`9LV>PFB*k3t?diTx(g)6YN%J@$KU4l279^!6)J(=8?zp"
    "el8NILmzY40G2L%;SzQH$CwV|1it?57FdfaFF?FH1&J%H?bZ^nJdN<2bkx@G5<WqoHLO*_(kT3=UAnjXP$VLILCZ2iAZE_c#e5vAQH5e?9*y;SgX"
    "h$tt@jjf~YD>s9Qu2v7X*yG5f67I<j2(s<ojkC8laq)^sgc!!?ubqzCk4@uydKq)m8>P2?s$%5jc4LnQFl&(PB}MvyyYrCoxRbjPf?J7|?%lvQ(k"
    "tcE*j@4NF>-^E))cgPyEt-0G~ZQVxe;8s~@x6-<}rPkfevz~5>edGSH&s~4(=z3c-_l-4jJ&A9vuIph{NZ)fmSXuW!3v<6%up2;ru!XuIT=yp{Mq"
    "Oby)B@Z{dnLo{kqohP8Dz=CMfu6j636LX667~xq{Yc>J0vqLo}TCky->U?Bwa(SWZw;TlV0tC?6HRu&3R%-_mJ-8ys`E|4%u5dV&dY=kKg3S@5{<"
    ">&BJrZ>CSR53FeQoe7{xscI)unHnt<$+TyjX?bYfQqZNrz+pRu`q-PmMuhW<4MZN$IN_L!;qKwuBa9#o!)iX1q`yf#=F}izpMqb-#$*@!M$c~Z5$"
    "y3`ak1duoirC5aZK8xPqjwhU=J?%=x_+$h&a%$Ch#PhV_v|vO*VDLY39KJSah*u6H(K&Dif6$rVv&Fm+q2c2bCuk)WyD-bw=8hZGdes|?h4KynVc"
    "`d?(bmc%POZH?V<rQ?GL3NUsxB^l^o1N8Zp<XPt-yNUt)$t-~n@mRH?>1qz3bq8q8DP#|<J`>QZjb{G~bku}OVouNq=hv5j77t-i$?%F8IPqP$u&"
    "GY8qj2)&yT`v_?wqxVHd-)oHWX^h5C8KKh{sr?yWU_SIiS?SmO>9;a7PCD^8(_4LmG|u`$Um}GooYzd8OC+A{ht-$!`4RqdMFSXPbIA$%!vxNIkP"
    "&}9BmV-fGgkv;A=jNv%+et8A+m;kawRi}HOwqFknW(I6LpyZ)^^eK5j%-!W{t<0A)Z1FW~A>kYplhru{Kf1CE!DMkTj0^SdNS4jUCZXa9lsdA#IB"
    "|ZI3AZ96RXKqqH;DYe({3+13e(+J^Pw9KN<GZj;R?^}%CFq&+8Eh9sFMSIrMiTs!;Fb>*w;Y;9Z@Ywg-vQ}?NrpjW$U<=subwfk1kJ+^!<!*aQ2<"
    "X>2BBCC5#yEiLDn<zqkareZ6s1I|m_~svRmizXJyUQ7GTT6G#K6W?w{{Q9MPvkp4Pkkc$By;uaR>xiATmRQ;yCkbfoiDo6Q@17Bqb6xB+R^(`5E*"
    "uxHR~PLvB{*#aP)ea=?Q(1Kr25%`55i{2p-!>q}nOg$ET4-+ka>mIOacGq@08Yc8zuO72L6#<Ws3n<;gCgKU_oqHiQ0g0x?!=%Xnr}e^3|6wlUgB"
    "MrmW2L}X?Te2XvSu5BURB`Fpyx9MN5*-^PdA8?hgI+?#jy{6~%I=P$tJzyr0%1k0f)2PpmxvrTlajk8w`^>hwFYF)Q!cN{o6zNvp#5UK)Ho8yP-q"
    "cpO#+Dte=-1n5CFY&s^0~ez9khbf(sD$3X`mIE*H)AW`uvt`YeJfx7PcMr-DWg)TX@?W$gihGt)|7TV}x4Cnq(y^xwVX58>rieoQyc9>@benQS7r"
    "r?+{}#m~Y!L*EW%EzzW-lb+!dtDDNVTwJ7$BMLchA7_;LMd>_O3=K7N#$TyOU*>|WUqr6;01$l<btW~Q@URIO$5hhm=L=>0X2xOHUC@0CEL`gYA{"
    "Tb%?mpRrC-!po3X4LtTx6+9>(wDS9b$)2z%1Z@TPD;Cq65_(8I?>3z$Cq}1vE!)w&JMfo7Dw#mx$btKTl72nh3#-(+b+hKXvUqbj3ZHuExX<KL_d"
    "DXVZPP`dX)V{3}0_7WnYwGJP*ZEVgZ5~kAoP0eNY#3@ByYGg3&sHd?t+KUVmeb^fULF3lW~5gnK?jK566y5Lx9T&tIB&*`*E9(aR#O*r%l@QqS|1"
    "8sw{bnWY-_;iUOk`}rYVgms+IN2;aJ+ozG<mY1Zdc8^Gvhm;?(?U`Mt_r4*ta^fnZL=tt$;^=36>3e<nUJlYnpCtCsPw%47jzL4&O8C$xe?uSKk?"
    "VYc+tPz?<A%0o=J*NHwK+XyGiH#@scV93<S%MddYcyHTOf)3a&WJKc+RNuND33h@R0T1-FGyY-w?#M(nKih+A^$ji;)(_3sN6UlA1DG>c|SIEz6}"
    "A_gabBOG#RLexfw9mr6WSUyRl;naTSYL$5!Q7*21S4V~$4I=DOZWcNt#GpBe!+^5gEZ(q7J`@*H$S420;`A~{pq8P2a1U*J6T6~bjqnyPd%=V*#9"
    "Y96fLmG|HcZg-57?dP}sV_k}FKK?;N4g(@c8sT#s-^6jhS+(=`4lZ{ceH|~k$<FN_EyWVMhLd2TH4at&lg+eV?;@7#IVBN&gyq7BVINP;8*=h4B;"
    "0IVg)*su_KZ(Z2;p+PxAd}jlF4&KfJTX>>7_ex*z^}0O}njJ%Ru%W}KtHmqn~UmzY2KtgOp2%Qo`NSR{`8QP!XTur^&`VD{r^T`yRVWU)P(!}e(&"
    "<|{dwtEk4PKT7hn%MlUWQ!w{XoUt_@>wqlWS1#@&JKJ(%IQ`8K`lm?dnxlAYQ_0VuZaQyn9{o`?{nkGEtDW>$bBIawSrgbcmU*f#K9b@@5!zuP<`"
    "6-op|sI~(ny9&WBE(!$rSlOh7f(F0d2Iu7q7n&zkB;h_c5btO+V0-KA;)jerH#KeR5e9D{K)KV3jPJRi<C=&9#2vz6NtI1G$&}L?5Cr<(}MQPqzD"
    "D6s2+0j^QpNN&gS>s^;A"
)
